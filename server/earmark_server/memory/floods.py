"""Detects connections that flood gRPC.

gRPC has few threads, and a connection on which frames never pause occupies one of them: PING, SETTINGS,
WINDOW_UPDATE or PRIORITY frames, or headers without an end. While all threads are occupied, all streams wait.
Such a connection sends much, but no call that its client may make. A legitimate client sends its call first,
and can then send no more than one window of its audio before the call is read.

Hundreds of connections may share a flood, so that each of them sends little. So the connections of a client
are also counted together.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable, Mapping

    from earmark_server.memory.connections import Connection
    from earmark_server.memory.peers import Peer

_MIN_READ_BYTES = 32 * 1024
"""What gRPC reads at least of a flood in a round."""

_MIN_CLIENT_READ_BYTES = 256 * 1024
"""What gRPC reads in a round at least of a flood on many connections of one client, which all send little.
Behind a proxy, a hundred legitimate clients may start TLS in a round, with 2 KB each."""

_MAX_HEADER_BYTES = 16 * 1024
"""More than a legitimate connection has sent before its call."""

_ROUND_S = 0.04
"""How long a round takes at least, in time and in CPU time of the process: on a busy machine, gRPC and the
event loop need longer for a call. A flood uses at least a whole core."""

_ENOUGH_EVIDENCE = 3.0
"""A connection or client with this evidence floods: 1 for each round in which it sends enough."""

_QUEUE_S = 2.0
"""The event loop reads one call after the other, and many clients may have connected at once. A round
in which first calls of other connections arrived is therefore evidence only against connections that are
older than one of those, by at least this much."""

_SILENT_ROUND = -0.2
"""The evidence of a round in which the connection sends little: beside others, gRPC may not read it."""

_FIRST_CALLS = 32
"""A connection that has sent more calls than this is no new one."""

_LOOP_TURNS = 100
"""In these turns of the event loop, a call that gRPC has received reaches the server."""


class FloodDetector:
    """Watches the connections without a call in rounds, which end once their calls could have arrived."""

    def __init__(
        self,
        peers: Mapping[str, Peer],
        loop: asyncio.AbstractEventLoop,
        client_of: Callable[[str], str],
    ) -> None:
        """`peers`: those that may call, and have called. The event loop `loop` counts their calls.

        `client_of` returns the client that the connections of a peer belong to.
        """
        self._peers = peers
        self._loop = loop
        self._client_of = client_of
        self._round = 0
        self._answered = 0  # the last round whose question the loop has answered
        self._start_s = self._start_cpu_s = 0.0
        self._first_calls = 0
        self._known: set[str] = set()  # the peers with calls at the last check
        self._seen_s: dict[str, float] = {}  # when each peer without a call was seen first
        self._newest_admitted_s = -math.inf  # of the peers that have called first in this round
        self._read: dict[str, int] = {}  # bytes that gRPC had read at the start of the round, by peer
        self._evidence: dict[str, float] = {}  # by peer
        self._client_evidence: dict[str, float] = {}  # by client

    def flooding(self, without_call: Iterable[Connection]) -> list[str]:
        """Return the peers that went on sending while the server had the time to see their calls."""
        now_s, cpu_s = time.monotonic(), time.process_time()
        read = {one.peer: one.read_bytes for one in without_call}
        self._note_connections(read, now_s)
        if self._answered < self._round or min(now_s - self._start_s, cpu_s - self._start_cpu_s) < _ROUND_S:
            return []
        sent = {peer: read[peer] - self._read.get(peer, 0) for peer in self._not_in_queue()}
        sent_by_client: Counter[str] = Counter()
        for peer, sent_bytes in sent.items():
            sent_by_client[self._client_of(peer)] += sent_bytes
        clients = {self._client_of(peer) for peer in read}
        self._evidence = _added(self._evidence, read, sent, _MIN_READ_BYTES)
        self._client_evidence = _added(self._client_evidence, clients, sent_by_client, _MIN_CLIENT_READ_BYTES)
        self._read = read
        self._begin_round(now_s, cpu_s)
        return [
            peer
            for peer, read_bytes in read.items()
            if self._evidence.get(peer, 0.0) >= _ENOUGH_EVIDENCE
            or (
                read_bytes > _MAX_HEADER_BYTES
                and self._client_evidence.get(self._client_of(peer), 0.0) >= _ENOUGH_EVIDENCE
            )
        ]

    def _note_connections(self, without_call: Iterable[str], now_s: float) -> None:
        """Note since when there are connections without a call, and the newest that has just got one."""
        known = set(self._peers)
        for peer in known - self._known:
            self._newest_admitted_s = max(self._newest_admitted_s, self._seen_s.get(peer, now_s))
        self._known = known
        self._seen_s = {peer: self._seen_s.get(peer, now_s) for peer in without_call}

    def _not_in_queue(self) -> list[str]:
        """Return the peers whose calls would have reached the server in this round."""
        first_calls = sum(min(peer.calls, _FIRST_CALLS) for peer in list(self._peers.values()))
        before_s = math.inf if first_calls == self._first_calls else self._newest_admitted_s - _QUEUE_S
        self._first_calls, self._newest_admitted_s = first_calls, -math.inf
        return [peer for peer, seen_s in self._seen_s.items() if seen_s < before_s]

    def _begin_round(self, now_s: float, cpu_s: float) -> None:
        self._round += 1
        self._start_s, self._start_cpu_s = now_s, cpu_s
        with contextlib.suppress(RuntimeError):  # the loop was closed: the server stops
            self._loop.call_soon_threadsafe(self._turn, self._round, _LOOP_TURNS)

    def _turn(self, of_round: int, turns: int) -> None:
        """Answer the question of a round after some turns of the loop."""
        if turns:
            self._loop.call_soon(self._turn, of_round, turns - 1)
        else:
            self._answered = of_round


def _added(
    before: Mapping[str, float], open_now: Iterable[str], sent: Mapping[str, int], least_bytes: int
) -> dict[str, float]:
    """Return the evidence after a round in which these bytes were sent, of those that are still open."""
    evidence = {key: before[key] for key in open_now if key in before}
    for key, sent_bytes in sent.items():
        evidence[key] = evidence.get(key, 0.0) + (1.0 if sent_bytes >= least_bytes else _SILENT_ROUND)
    return {key: amount for key, amount in evidence.items() if amount > 0}
