"""Moves long-lived streams to new connections, so that a server that was added gets its share of them.

gRPC closes a connection of some age for new calls (GOAWAY), and cuts it after a grace: at moments of its
own choosing, of which it tells nobody. Streams have to be told before the cut, and after the GOAWAY: a
client that goes on over a connection that still takes calls has not moved. So gRPC is given less than the
age, streams are told at it, and what gRPC cuts in the end has had its grace in any case.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import TYPE_CHECKING

from earmark_server.status import CallError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from earmark_server.rpc.admission import Call
    from earmark_server.settings import Settings

# By so much gRPC lets ages differ, so that connections that came together do not go together; we too.
_JITTER = 0.1

# Ended by us, calls get to send their status before the connection is cut.
_LAST_WORDS_S = 5.0

# Of more connections than that the oldest are forgotten: theirs are cut without being told, and resumed.
_MAX_CONNECTIONS = 100_000


class ConnectionAge:
    """Knows when each connection's streams are to leave; an age of 0: never."""

    def __init__(self, settings: Settings) -> None:
        self._age_s = settings.max_connection_age_s
        self._grace_s = settings.drain_grace_s
        self._leave_at: dict[str, float] = {}  # by peer, on the loop's clock

    @property
    def grpc_options(self) -> tuple[tuple[str, int], ...]:
        """The server's part of it."""
        if not self._age_s:
            return ()
        least, most = (1 - _JITTER) * self._age_s, (1 + _JITTER) * self._age_s
        closed_s = least / (1 + _JITTER)  # With gRPC's own jitter that is at most our least.
        cut_after_s = most + self._grace_s + _LAST_WORDS_S - (1 - _JITTER) * closed_s
        return (
            ("grpc.max_connection_age_ms", round(closed_s * 1000)),
            ("grpc.max_connection_age_grace_ms", round(cut_after_s * 1000)),
        )

    @contextlib.contextmanager
    def moving(self, call: Call) -> Iterator[None]:
        """Tell the call's stream to leave once its connection is of age, and end it after the grace.

        To be entered by every call: a connection's age counts from its first.
        """
        if not self._age_s:
            yield
            return
        loop = asyncio.get_running_loop()
        leave_at = self._find(call.peer, loop.time())

        def tell() -> None:
            if call.stream is not None:
                call.stream.request_progress()

        def end() -> None:
            call.end(CallError("DRAINING", "This connection has reached its age: resume on a new one."))

        timers = (loop.call_at(leave_at, tell), loop.call_at(leave_at + self._grace_s, end))
        try:
            yield
        finally:
            for timer in timers:
                timer.cancel()

    def _find(self, peer: str, now: float) -> float:
        while self._leave_at:
            oldest = next(iter(self._leave_at))
            if self._leave_at[oldest] > now and len(self._leave_at) < _MAX_CONNECTIONS:
                break
            del self._leave_at[oldest]
        leave_at = self._leave_at.get(peer, 0.0)
        if leave_at <= now:  # It takes no calls any more: this is another one, from the same port.
            self._leave_at.pop(peer, None)
            leave_at = now + self._age_s * random.uniform(1 - _JITTER, 1 + _JITTER)
            self._leave_at[peer] = leave_at
        return leave_at
