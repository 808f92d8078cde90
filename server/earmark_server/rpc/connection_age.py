"""Moves long-lived streams to new connections, so that a server that was added gets its share of them.

At a certain age of a connection, gRPC closes it for new calls (GOAWAY); after a grace it cuts it. It chooses
both moments itself and announces neither. A stream has to be notified before the cut and after the GOAWAY: a
client that resumes on a connection that still accepts calls has not moved. So gRPC is configured with less
than the age, streams are notified at the age, and gRPC cuts a connection only after their grace has passed.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import TYPE_CHECKING

from earmark_server.status import CallError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from earmark_server.rpc.call import Call
    from earmark_server.settings import Settings

# gRPC varies each connection's age by this share, so that connections that were opened together are not
# closed together. The same is done here.
_JITTER = 0.1

# The time that an ended call has to send its status before gRPC cuts the connection.
_STATUS_TIME_S = 5.0

# Of more connections, the oldest are forgotten: gRPC cuts them without a notification, and clients resume.
_MAX_CONNECTIONS = 100_000


class ConnectionAge:
    """Knows when the streams of each connection have to move; with an age of 0 they never have to."""

    def __init__(self, settings: Settings) -> None:
        self._age_s = settings.max_connection_age_s
        self._grace_s = settings.drain_grace_s
        self._expires_at: dict[str, float] = {}  # by peer, on the loop's clock

    @property
    def grpc_options(self) -> tuple[tuple[str, int], ...]:
        """The gRPC server options that close and cut connections in time."""
        if not self._age_s:
            return ()
        least, most = (1 - _JITTER) * self._age_s, (1 + _JITTER) * self._age_s
        closed_s = least / (1 + _JITTER)  # With gRPC's own jitter that is at most our least.
        cut_after_s = most + self._grace_s + _STATUS_TIME_S - (1 - _JITTER) * closed_s
        return (
            ("grpc.max_connection_age_ms", round(closed_s * 1000)),
            ("grpc.max_connection_age_grace_ms", round(cut_after_s * 1000)),
        )

    @contextlib.contextmanager
    def applied_to(self, call: Call) -> Iterator[None]:
        """Notify the call's stream when its connection reaches the age, and end the call after the grace.

        Every call enters this block, because a connection's age counts from its first call.
        """
        if not self._age_s:
            yield
            return
        loop = asyncio.get_running_loop()
        expires_at = self._expiry(call.peer, loop.time())
        error = CallError("DRAINING", "This connection has reached its age limit. Resume on a new one.")
        timers = (
            loop.call_at(expires_at, call.notify_draining),
            loop.call_at(expires_at + self._grace_s, call.end, error),
        )
        try:
            yield
        finally:
            for timer in timers:
                timer.cancel()

    def _expiry(self, peer: str, now: float) -> float:
        """Return when the connection of a peer reaches its age."""
        while self._expires_at:
            oldest = next(iter(self._expires_at))
            if self._expires_at[oldest] > now and len(self._expires_at) < _MAX_CONNECTIONS:
                break
            del self._expires_at[oldest]
        expires_at = self._expires_at.get(peer, 0.0)
        if expires_at <= now:  # An expired connection accepts no calls: this is a new one from the same port.
            self._expires_at.pop(peer, None)
            expires_at = now + self._age_s * random.uniform(1 - _JITTER, 1 + _JITTER)
            self._expires_at[peer] = expires_at
        return expires_at
