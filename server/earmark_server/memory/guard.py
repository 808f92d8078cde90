"""The memory guard: closes connections before the process has used up its memory.

gRPC buffers the half-received messages and headers of every connection before any code of this server sees
them, and has no limit on their sum. So a thread watches the memory of the process. When it grows, the thread
closes connections that have sent much, but no call. When it exceeds its limit, the thread closes those of
the client that has sent the most lately. Streams can resume. Otherwise the system would kill the process,
with the streams of all clients.
"""

from __future__ import annotations

import ctypes
import logging
import math
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

from earmark_server.logs import log
from earmark_server.memory.connections import close, connections
from earmark_server.memory.limit import resident_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from earmark_server.memory.connections import Connection

_LOGGER = logging.getLogger(__name__)

_CHECK_INTERVAL_S = 0.05
_MAX_CHECK_INTERVAL_S = 0.5
_FASTEST_GROWTH_BYTES_PER_S = 8 << 30
"""The memory grows no faster. Until it could have reached the limit, it need not be checked, so that a server
with one quiet stream is not woken 20 times per second."""

_LIMIT_INTERVAL_S = 5.0
"""How often the limit is read, which takes a dozen files."""

_RELEASE_TIME_S = 0.1
"""How long gRPC needs to free the memory of most closed connections."""

_TRIM_INTERVAL_S = 0.5
_TRIM_TIME_S = 3.0
"""How often, and for how long after connections were closed, free memory is returned to the system."""

_IDLE_TIME_S = 0.5
"""Pause if the memory is short, and no connection can be closed."""

_LEAST_FOR_CLIENTS_BYTES = 64 << 20

_LEAST_SHARE = 1 / 8
"""A client that has sent less than this share of the memory of all clients does not hold it: the others may
have disconnected a moment ago."""

_WINDOW_S = 30.0
"""Bytes count as sent lately for between one and two times this long."""

_LOG_INTERVAL_S = 1.0
_MIN_BYTES = 64 * 1024
"""A connection that has sent less than this is not closed."""

_MAX_BYTES_WITHOUT_CALL = 1 << 20
_MAX_TIME_WITHOUT_CALL_S = 0.25
"""A connection is closed if it has sent this much and, this much later, still no call of it is admitted. The
time is for a busy event loop, because a useful client sends its call first. It shrinks to 0 as the memory is
used up, with the square of the share that is free."""

_GROWTH_BYTES = 16 << 20
"""Growth of the memory after which connections without a call are looked for."""


class MemoryGuard:
    """Watches the memory of this process, on its own thread, from `start` to `stop`."""

    def __init__(
        self,
        ports: Collection[int],
        limit_bytes: Callable[[], int],
        client_of: Callable[[str], str],
        peers_with_calls: set[str],
    ) -> None:
        """`limit_bytes` returns the memory above which connections are closed.

        `client_of` returns the client that the connections of a peer belong to. `peers_with_calls`: those
        of which a call was admitted. The event loop adds them, and the guard removes them.
        """
        self._peers_with_calls = peers_with_calls
        self._stated_limit_bytes = limit_bytes
        self._models_bytes = 0
        self._ports = ports
        self._client_of = client_of
        self._before: dict[str, int] = {}  # bytes received by the begin of the window, by peer
        self._before_next: dict[str, int] = {}
        self._window_start_s = time.monotonic()
        self._least_bytes: float = math.inf  # the memory since connections without a call were looked for
        self._without_call_s: dict[str, float] = {}  # since when, by peer
        self._closed_s = -math.inf  # when connections were closed
        self._trim_s = 0.0  # when to return free memory to the system
        self._closed = 0
        self._logged_s = 0.0
        self._limit_bytes = 0
        self._limit_read_s = -math.inf
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="earmark-memory", daemon=True)

    def start(self) -> None:
        """Start watching."""
        self._thread.start()

    def allow_for_models(self) -> None:
        """Raise a limit that the models alone would exceed; to be called once they are loaded."""
        self._models_bytes = resident_bytes() or 0
        self._limit_read_s = -math.inf

    def stop(self) -> None:
        """Stop watching."""
        self._stopping.set()

    def _run(self) -> None:
        interval_s = 0.0
        while not self._stopping.wait(interval_s):
            now_s = time.monotonic()
            if now_s - self._limit_read_s > _LIMIT_INTERVAL_S:
                self._limit_read_s, self._limit_bytes = now_s, self._read_limit()
            if now_s - self._window_start_s > _WINDOW_S:
                self._begin_window()
            used_bytes = resident_bytes()
            if used_bytes is None:
                return
            is_short = used_bytes > self._limit_bytes
            if is_short or self._without_call_s or used_bytes > self._least_bytes + _GROWTH_BYTES:
                self._least_bytes = used_bytes
                opened = connections(self._ports)
                if peers := self._without_call(opened, used_bytes):
                    # The next check must not wait for their memory: they may have connected again.
                    self._close(peers, used_bytes)
                elif is_short:
                    peers = self._sent_most_lately(opened, used_bytes)
                    self._close(peers, used_bytes)
                    self._stopping.wait(_RELEASE_TIME_S if peers else _IDLE_TIME_S)
                    self._trim_s = now_s
            if self._trim_s <= now_s < self._closed_s + _TRIM_TIME_S:
                self._trim_s = now_s + _TRIM_INTERVAL_S
                _return_free_memory()
            self._least_bytes = min(self._least_bytes, used_bytes)
            interval_s = self._interval_s(used_bytes)

    def _read_limit(self) -> int:
        return max(self._stated_limit_bytes(), self._models_bytes + _LEAST_FOR_CLIENTS_BYTES)

    def _interval_s(self, used_bytes: int) -> float:
        """Return how long the memory need not be checked."""
        if self._without_call_s:
            return _CHECK_INTERVAL_S
        interval_s = (self._limit_bytes - used_bytes) / _FASTEST_GROWTH_BYTES_PER_S
        return min(max(interval_s, _CHECK_INTERVAL_S), _MAX_CHECK_INTERVAL_S)

    def _begin_window(self) -> None:
        known = self._peers_with_calls.copy()
        opened = connections(self._ports)
        self._window_start_s = time.monotonic()
        self._before = self._before_next
        self._before_next = {one.peer: one.received_bytes for one in opened}
        self._peers_with_calls -= known - self._before_next.keys()

    def _close(self, peers: list[str], used_bytes: int) -> None:
        close(self._ports, peers)
        if peers:
            self._closed_s = time.monotonic()
        self._closed += len(peers)
        if self._closed and time.monotonic() - self._logged_s > _LOG_INTERVAL_S:
            log(
                _LOGGER,
                logging.ERROR,
                "connections closed to save memory",
                connections=self._closed,
                client=self._client_of(peers[0]) if peers else None,
                used_mb=used_bytes >> 20,
                limit_mb=self._limit_bytes >> 20,
            )
            self._closed, self._logged_s = 0, time.monotonic()

    def _without_call(self, opened: list[Connection], used_bytes: int) -> list[str]:
        """Return the peers that have sent much, but no call that was admitted."""
        now_s = time.monotonic()
        self._without_call_s = {
            one.peer: self._without_call_s.get(one.peer, now_s)
            for one in opened
            if one.received_bytes > _MAX_BYTES_WITHOUT_CALL and one.peer not in self._peers_with_calls
        }
        free_share = (self._limit_bytes - used_bytes) / (self._limit_bytes - self._models_bytes)
        overdue_s = now_s - _MAX_TIME_WITHOUT_CALL_S * max(0.0, free_share) ** 2
        return [peer for peer, since_s in self._without_call_s.items() if since_s <= overdue_s]

    def _sent_most_lately(self, opened: list[Connection], used_bytes: int) -> list[str]:
        """Return the peers of the client that has sent the most lately, except those that sent little."""
        lately = {one.peer: one.received_bytes - self._before.get(one.peer, 0) for one in opened}
        by_client: Counter[str] = Counter()
        for peer, sent_bytes in lately.items():
            by_client[self._client_of(peer)] += sent_bytes
        least_bytes = _LEAST_SHARE * (used_bytes - self._models_bytes)
        if not by_client or by_client.most_common(1)[0][1] < least_bytes:
            return []
        client = by_client.most_common(1)[0][0]
        of_client = {peer: sent for peer, sent in lately.items() if self._client_of(peer) == client}
        # Behind a proxy all connections have one address.
        least = max(_MIN_BYTES, max(of_client.values()) // 4)
        return [peer for peer, sent_bytes in of_client.items() if sent_bytes >= least]


def _return_free_memory() -> None:
    """Return free memory of the C library to the system, where it is one that can: it keeps small blocks."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
