"""Detects connections that flood gRPC.

gRPC has few threads, and a connection on which frames never pause occupies one of them: PING, SETTINGS,
WINDOW_UPDATE or PRIORITY frames, or headers without an end. While all threads are occupied, all streams wait.
Such a connection sends much, but no call that its client may make. A useful client sends its call first, and
can then send no more than one window of its audio before the call is read.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections import Counter
    from collections.abc import Iterable

    from earmark_server.memory.connections import Connection

_MIN_GROWTH_BYTES = 32 * 1024
"""What a flood sends at least from one check to the next."""

_MIN_TIME_S = 0.1
"""How long a flood goes on, while no other connection sends its first calls, before it is one."""

_FIRST_CALLS = 32
"""A connection that has sent more calls than this is no new one."""

_MAX_TIME_S = 0.5
"""After this time a connection is no longer suspected, unless it still sends."""

_LOOP_TURNS = 100
"""In these turns of the event loop, a call that gRPC has received reaches the server."""


@dataclass(frozen=True, slots=True)
class _Suspect:
    """A connection that sends without a call: since when, and the question that the loop was asked then."""

    since_s: float
    question: int


class FloodDetector:
    """Compares the connections without a call from check to check."""

    def __init__(self, peers_with_calls: Counter[str], loop: asyncio.AbstractEventLoop) -> None:
        """`peers_with_calls`: the calls of peers that may call, counted by the event loop `loop`."""
        self._peers_with_calls = peers_with_calls
        self._first_calls = 0
        self._loop = loop
        self._called_s = 0.0  # when one of the first calls of a connection arrived
        self._received: dict[str, int] = {}  # bytes at the last check, by peer
        self._suspects: dict[str, _Suspect] = {}
        self._question = 0
        self._answered = 0  # the last question that the loop has answered

    def flooding(self, without_call: Iterable[Connection]) -> list[str]:
        """Return the peers that went on sending while the event loop had the time to see their calls."""
        now_s = time.monotonic()
        first_calls = sum(min(count, _FIRST_CALLS) for count in self._peers_with_calls.copy().values())
        if first_calls != self._first_calls:
            # Many clients may have connected at once, and the loop reads one call after the other.
            self._first_calls, self._called_s = first_calls, now_s
        received = {one.peer: one.received_bytes for one in without_call}
        growing = {
            peer
            for peer, received_bytes in received.items()
            if received_bytes - self._received.get(peer, 0) >= _MIN_GROWTH_BYTES
        }
        suspects = {
            peer: suspect
            for peer, suspect in self._suspects.items()
            if peer in received and now_s - suspect.since_s < _MAX_TIME_S
        }
        if added := growing - suspects.keys():
            self._question += 1
            suspects.update(dict.fromkeys(added, _Suspect(now_s, self._question)))
            with contextlib.suppress(RuntimeError):  # the loop was closed: the server stops
                self._loop.call_soon_threadsafe(self._turn, self._question, _LOOP_TURNS)
        self._received, self._suspects = received, suspects
        return [peer for peer in growing if self._had_time(suspects[peer], now_s)]

    def _had_time(self, suspect: _Suspect, now_s: float) -> bool:
        """Return whether the event loop would have seen a call of the connection, if it had sent one."""
        waited_s = now_s - max(suspect.since_s, self._called_s)
        return waited_s >= _MIN_TIME_S and self._answered >= suspect.question

    def _turn(self, question: int, turns: int) -> None:
        """Answer a question after some turns of the loop."""
        if turns:
            self._loop.call_soon(self._turn, question, turns - 1)
        else:
            self._answered = question
