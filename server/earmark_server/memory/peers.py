"""The peers that may call, and what their calls account for of the bytes that their connections send."""

from __future__ import annotations

import re
from collections import defaultdict
from urllib.parse import unquote

_SCOPE = re.compile(r"%[^\]]*")

_MESSAGE_BYTES = 256
"""A message besides its audio: fields, frames, its part of TLS, and answers to what the server sends."""

WINDOW_BYTES = 1 << 20
"""What a client may send on a connection, or on one stream of it, before the server reads it, besides a
message that is being read: the window of HTTP/2."""

_MAX_CANCELLED_CALLS = 64
_CANCELLED_TIME_S, _QUIET_S = 1.0, 0.2
"""A client that cancels this many calls in the first time, before a message of theirs is read, floods gRPC,
which handles hundreds of calls while Python handles one. Behind a proxy, clients share a connection: so no
message of any call may be read for the second time. Live streams send one every tenth of a second."""

_FRAMED = 1.02
"""The bytes of long audio with the headers of its frames and of TLS, for each byte."""


def connection_of(peer: str) -> str:
    """Return the connection of a peer that gRPC states, as the guard names it: without an IPv6 scope."""
    return _SCOPE.sub("", unquote(peer))


class Peer:
    """A peer with calls. The event loop keeps it up to date, and the guard reads it."""

    __slots__ = (
        "_cancelled_calls",
        "_cancelled_since_s",
        "accounted_bytes",
        "calls",
        "ended_bytes",
        "pending_bytes",
    )

    def __init__(self) -> None:
        self.calls = 0
        """The calls so far."""
        self.accounted_bytes = 0.0
        """At least what the messages that were read have occupied."""
        self.pending_bytes = 0
        """The most that the open calls may have sent besides: messages that have not been read."""
        self.ended_bytes = 0
        """The most that the ended calls may have sent besides."""
        self._cancelled_calls = 0
        self._cancelled_since_s = 0.0

    def begin_call(self, pending_bytes: int) -> None:
        """Count a call, of which this much may arrive before it is read."""
        self.calls += 1
        self.pending_bytes += pending_bytes

    def end_call(self, pending_bytes: int) -> None:
        """Count the end of a call. What has arrived of it is not read any more."""
        self.pending_bytes -= pending_bytes
        self.ended_bytes += pending_bytes

    def count_cancelled_call(self, now_s: float) -> None:
        """Count a call that its client has cancelled before a message was read."""
        if not self._cancelled_calls or now_s > self._cancelled_since_s + _CANCELLED_TIME_S:
            self._cancelled_calls, self._cancelled_since_s = 0, now_s
        self._cancelled_calls += 1

    def only_cancels(self, now_s: float) -> bool:
        """Return whether the client cancels calls, and does nothing else, as no legitimate client does."""
        is_recent = _QUIET_S <= now_s - self._cancelled_since_s < 2 * _CANCELLED_TIME_S
        return is_recent and self._cancelled_calls >= _MAX_CANCELLED_CALLS

    def count_rejected_call(self) -> None:
        """Count an unread call of a client that may not call: behind a proxy, clients share connections."""
        self.calls += 1
        self.accounted_bytes += WINDOW_BYTES

    def count_message(self, audio_bytes: int) -> None:
        """Count a message that was read."""
        self._cancelled_calls = 0
        self.accounted_bytes += _FRAMED * audio_bytes + _MESSAGE_BYTES


class Peers(defaultdict[str, Peer]):
    """The peers that may call, and have called, by connection.

    The event loop adds them, and the guard removes those that have disconnected.
    """

    def __init__(self) -> None:
        super().__init__(Peer)
        self.closed: set[str] = set()
        """Those whose connections the guard has closed, as long as they cannot connect again.

        gRPC still reports their calls.
        """
        self.flooding: set[str] = set()
        """Those that the event loop wants closed, with the like of their clients. The guard clears it."""
