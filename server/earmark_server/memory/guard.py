"""The guard: closes connections that occupy gRPC's threads, or that use up the memory of the process.

gRPC reads the frames of every connection, and buffers half-received messages and headers, before any code of
this server sees them. It limits neither the threads that one connection occupies nor the sum of the buffers.
So a thread watches the process. While it is busy, the thread closes connections that send much, but no call.
When the memory exceeds its limit, it closes those of the client that has sent the most lately. Streams can
resume. Otherwise the system would kill the process, with the streams of all clients. A client that was cut
off is kept out for a while: gRPC holds what a closed connection has sent until Python has seen its calls.
"""

from __future__ import annotations

import ctypes
import logging
import math
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

from earmark_audio.line_sampler import LineSampler

from earmark_server.logs import log
from earmark_server.memory.connections import Connections
from earmark_server.memory.descriptor_reserve import DescriptorReserve
from earmark_server.memory.excess import ExcessDetector
from earmark_server.memory.floods import FloodDetector
from earmark_server.memory.limit import resident_bytes
from earmark_server.memory.refusals import Refusals

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Collection

    from earmark_server.memory.connections import Connection
    from earmark_server.memory.peers import Peers

_LOGGER = logging.getLogger(__name__)

_MIN_INTERVAL_S = 0.05
_MAX_INTERVAL_S = 0.1
_IDLE_INTERVAL_S = 0.5
"""How often the process is checked: while it is busy, while it has clients, and while it has none."""

_FASTEST_GROWTH_BYTES_PER_S = 8 << 30
"""The memory grows no faster. It is checked before it could have reached the limit."""

_BUSY_SHARE = 0.3
"""A process that uses this share of a core is busy. A flood that delays streams uses at least a whole one."""

_LIMIT_INTERVAL_S = 5.0
"""How often the limit is read, which takes a dozen files."""

_RELEASE_TIME_S = 0.1
"""How long gRPC needs to free the memory of most closed connections that its calls do not hold."""

_TRIM_INTERVAL_S = 0.5
_TRIM_TIME_S = 3.0
"""How often, and for how long after connections were closed, free memory is returned to the system."""

_RETRY_TIME_S = 0.5
"""Pause if the memory is short, and no connection can be closed, or if the memory is unknown."""

_REFUSED_S = 2.5
"""How long clients that flood gRPC can open no connection, and nobody after connections were closed because
memory was short. gRPC frees it in this time. A legitimate client waits for three seconds: its system repeats
the request to connect after one and three."""

_FREED_SHARE = 0.5
_LONGEST_REFUSAL_S = 30.0
"""Clients that flood gRPC are refused longer, up to this long, until the memory is below this share of its
limit: a call with a million headers of one byte is only freed when Python has read it, in a second."""

_SUSPECTED_S = 60.0
"""So long after a flood, connections of the same client are closed once they have sent more than the headers
of a call, but no call: gRPC may read some of the flooding connections later than others."""

_LEAST_FOR_CLIENTS_BYTES = 64 << 20

_MEMORY_PER_FILE_BYTE = 6
"""The memory that a model occupies, per byte of its file. The bundled one has 5.7, the speech encoder 3."""

_LEAST_SHARE = 1 / 8
"""A client that has sent less than this share of the memory of all clients does not hold it: the others may
have disconnected a moment ago."""

_WINDOW_S = 30.0
"""Bytes count as sent lately for between one and two times this long."""

_MIN_BYTES = 64 * 1024
"""A connection that has sent less than this is not closed."""

_MAX_BYTES_WITHOUT_CALL = 16 * 1024
"""What a connection without a call may have sent when the memory is short: more than the headers of a call. A
header of one byte occupies 64."""


class MemoryGuard:
    """Watches the memory of this process, on its own thread, from `start` to `stop`."""

    def __init__(
        self,
        ports: Collection[int],
        limit_bytes: Callable[[], int],
        client_of: Callable[[str], str],
        peers: Peers,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        """`limit_bytes` returns the memory above which connections are closed.

        `client_of` returns the client that the connections of a peer belong to. The event loop `loop` adds to
        `peers`.
        """
        self._peers = peers
        self._stated_limit_bytes = limit_bytes
        self._base_bytes = 0  # without clients and models
        self._file_bytes: Callable[[], int] = lambda: 0
        self._models_bytes = 0  # without clients
        self._connections = Connections(ports)
        self._client_of = client_of
        self._floods = FloodDetector(peers, loop, client_of)
        self._excess = ExcessDetector(client_of)
        self._refusals = Refusals(self._connections)
        self._flooded_s: dict[str, float] = {}  # when each client has flooded gRPC last
        self._shut_down: set[str] = set()  # the peers whose connections the last check shut down as floods
        self._before: dict[str, int] = {}  # bytes received by the begin of the window, by peer
        self._before_next: dict[str, int] = {}
        self._window_start_s = time.monotonic()
        self._checked_s = time.monotonic()
        self._cpu_s = time.process_time()
        self._closed_s = -math.inf  # when connections were closed
        self._trim_s = 0.0  # when to return free memory to the system
        self._line_sampler = LineSampler()
        self._limit_bytes = 0
        self._stated_bytes = 0
        self._stated_read_s = -math.inf
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="earmark-memory", daemon=True)

    def start(self) -> None:
        """Start watching."""
        self._thread.start()

    def allow_for_models(self, file_bytes: Callable[[], int]) -> None:
        """Raise a limit that the models alone would exceed; to be called once the first ones are loaded.

        `file_bytes` returns the sum of the lengths of the files of all models in memory, on any thread.
        """
        self._base_bytes = (resident_bytes() or 0) - _MEMORY_PER_FILE_BYTE * file_bytes()
        self._file_bytes = file_bytes

    def stop(self) -> None:
        """Stop watching."""
        self._stopping.set()

    def _run(self) -> None:
        reserve = DescriptorReserve()
        interval_s = 0.0
        while not self._stopping.wait(interval_s):
            try:
                interval_s = self._check(reserve)
            except Exception:
                # A check that is left out is better than none from now on.
                _LOGGER.exception("the memory guard has failed")
                interval_s = _RETRY_TIME_S
        reserve.close()

    def _check(self, reserve: DescriptorReserve) -> float:
        """Check the process once, and close what has to be closed; return the time to the next check."""
        now_s = time.monotonic()
        used_bytes, is_busy = resident_bytes(), self._is_busy(now_s)
        if used_bytes is None:
            return _RETRY_TIME_S
        self._update_limit()
        if not (is_busy or self._is_due(now_s, used_bytes)):
            # The usual case opens no file, which would take longer than all the rest.
            return self._interval_s(used_bytes)
        with reserve.released():
            return self._check_connections(now_s, used_bytes, is_busy=is_busy)

    def _is_due(self, now_s: float, used_bytes: int) -> bool:
        """Return whether something is left to do, or has to be repeated from time to time."""
        return (
            used_bytes > self._limit_bytes
            or now_s - self._stated_read_s > _LIMIT_INTERVAL_S
            or now_s - self._window_start_s > _WINDOW_S
            or now_s < self._closed_s + _TRIM_TIME_S
            or self._refusals.needs_checks
            or bool(self._peers.flooding or self._peers.closed)
        )

    def _check_connections(self, now_s: float, used_bytes: int, *, is_busy: bool) -> float:
        """Do what a check may have to do, and return the time to the next one."""
        if now_s - self._stated_read_s > _LIMIT_INTERVAL_S:
            self._stated_read_s, self._stated_bytes = now_s, self._stated_limit_bytes()
            self._update_limit()
        if now_s - self._window_start_s > _WINDOW_S:
            self._begin_window()
        is_short = used_bytes > self._limit_bytes
        interval_s = self._interval_s(used_bytes)
        is_freed = used_bytes < _FREED_SHARE * self._limit_bytes
        keeps_networks = not is_freed and now_s < self._closed_s + _LONGEST_REFUSAL_S
        self._refusals.expire(now_s, keeps_networks=keeps_networks)
        may_return = [peer for peer in self._peers.closed if not self._refusals.refuses(peer)]
        self._peers.closed.difference_update(may_return)
        if is_busy or is_short or self._peers.flooding:
            interval_s = _MIN_INTERVAL_S
            # The next check must not wait for the memory of floods: there may be more of them.
            if not self._close_floods(used_bytes, is_short=is_short) and is_short:
                self._trim_s = now_s
                interval_s = _RELEASE_TIME_S if self._close_greediest(used_bytes) else _RETRY_TIME_S
        if self._trim_s <= now_s < self._closed_s + _TRIM_TIME_S:
            self._trim_s = now_s + _TRIM_INTERVAL_S
            _return_free_memory()
        return interval_s

    def _update_limit(self) -> None:
        models_bytes = self._base_bytes + _MEMORY_PER_FILE_BYTE * self._file_bytes()
        if models_bytes < self._models_bytes:
            # The C library keeps most memory of a model that was unloaded.
            _return_free_memory()
        self._models_bytes = models_bytes
        self._limit_bytes = max(self._stated_bytes, models_bytes + _LEAST_FOR_CLIENTS_BYTES)

    def _interval_s(self, used_bytes: int) -> float:
        """Return how long the process need not be checked, if it is not busy."""
        interval_s = (self._limit_bytes - used_bytes) / _FASTEST_GROWTH_BYTES_PER_S
        longest_s = _MAX_INTERVAL_S if self._peers else _IDLE_INTERVAL_S
        return min(max(interval_s, _MIN_INTERVAL_S), longest_s)

    def _is_busy(self, now_s: float) -> bool:
        """Return whether the process has been busy since the last check."""
        passed_s, self._checked_s = now_s - self._checked_s, now_s
        before_s, self._cpu_s = self._cpu_s, time.process_time()
        return self._cpu_s - before_s > _BUSY_SHARE * passed_s

    def _begin_window(self) -> None:
        known = dict(self._peers)
        opened = self._connections.opened()
        self._window_start_s = time.monotonic()
        self._before = self._before_next
        self._before_next = {one.peer: one.received_bytes for one in opened}
        for peer in known.keys() - self._before_next.keys():
            del self._peers[peer]

    def _close_floods(self, used_bytes: int, *, is_short: bool) -> bool:
        """Close the connections that flood gRPC, and the like of the same clients; return whether any."""
        known = dict(self._peers)
        looked_at = self._excess.next_peers(known)
        opened = self._connections.opened(ignored_peers=known.keys() - looked_at)
        without_call = [one for one in opened if one.peer not in known]
        with_calls = [one for one in opened if one.peer in known]
        now_s = time.monotonic()
        self._flooded_s = {c: at_s for c, at_s in self._flooded_s.items() if at_s > now_s - _SUSPECTED_S}
        reported = self._peers.flooding.copy()
        flooding = [
            *self._floods.flooding(without_call),
            *self._excess.flooding(with_calls, known, now_s, used_bytes=used_bytes),
            *reported,
        ]
        self._flooded_s.update({self._client_of(peer): now_s for peer in flooding})
        more = {one.peer for one in without_call if one.received_bytes > _MAX_BYTES_WITHOUT_CALL}
        of_floods = {peer for peer in more if self._client_of(peer) in self._flooded_s}.union(flooding)
        peers = of_floods | more if is_short else of_floods
        # gRPC may take a moment to notice that a connection was shut down.
        self._refusals.refuse(of_floods - self._shut_down, now_s + _REFUSED_S)
        self._shut_down = of_floods
        self._close(peers, "flooding connections closed", used_bytes, is_short=is_short)
        self._peers.flooding -= reported
        return bool(peers)

    def _close_greediest(self, used_bytes: int) -> bool:
        """Close the connections of the client that has sent the most lately; return whether there is one."""
        peers = self._sent_most_lately(self._connections.opened(), used_bytes)
        self._close(peers, "connections closed to save memory", used_bytes, is_short=True)
        return bool(peers)

    def _close(self, peers: Collection[str], event: str, used_bytes: int, *, is_short: bool) -> None:
        if not peers:
            return
        self._closed_s = time.monotonic()
        if is_short:
            self._refusals.refuse_all(self._closed_s + _REFUSED_S)
        self._peers.closed.update(peers)
        self._connections.close(peers)
        sampled = self._line_sampler.admit(event)
        if sampled is not None:
            log(
                _LOGGER,
                logging.ERROR,
                event,
                connections=len(peers),
                client=self._client_of(next(iter(peers))),
                used_mb=used_bytes >> 20,
                limit_mb=self._limit_bytes >> 20,
                **sampled,
            )

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
