"""Detects connections that flood gRPC.

gRPC has few threads, and a connection on which frames never pause occupies one of them: PING, SETTINGS,
WINDOW_UPDATE or PRIORITY frames, or headers without an end. While all threads are occupied, all streams wait.
Such a connection sends much, but no call that its client may make. A useful client sends its call first, and
can then send no more than one window of its audio before the call is read.

Hundreds of connections may share a flood, so that each of them sends little. So the connections of a client
are also counted together.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable, Mapping

    from earmark_server.memory.connections import Connection

_MIN_READ_BYTES = 32 * 1024
"""What gRPC reads at least of a flood in a round."""

_MIN_CLIENT_READ_BYTES = 256 * 1024
"""What gRPC reads in a round at least of a flood on many connections of one client, which all send little.
Behind a proxy, a hundred useful clients may start TLS in a round, with 2 KB each."""

_MAX_HEADER_BYTES = 16 * 1024
"""More than a useful connection has sent before its call."""

_ROUND_S = 0.04
"""How long a round takes at least, in time and in CPU time of the process: on a busy machine, gRPC and the
event loop need longer for a call. A flood uses at least a whole core."""

_ENOUGH_EVIDENCE = 3.0
"""A connection or client with this evidence floods: 1 for each round in which it sends."""

_EVIDENCE_BESIDE_CALLS = 0.1
"""The evidence of a round in which first calls of other connections arrived: the event loop reads one call
after the other, and many clients may have connected at once."""

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
        peers_with_calls: Counter[str],
        loop: asyncio.AbstractEventLoop,
        client_of: Callable[[str], str],
    ) -> None:
        """`peers_with_calls`: the calls of peers that may call, counted by the event loop `loop`.

        `client_of` returns the client that the connections of a peer belong to.
        """
        self._peers_with_calls = peers_with_calls
        self._loop = loop
        self._client_of = client_of
        self._round = 0
        self._answered = 0  # the last round whose question the loop has answered
        self._start_s = self._start_cpu_s = 0.0
        self._first_calls = 0
        self._read: dict[str, int] = {}  # bytes that gRPC had read at the start of the round, by peer
        self._evidence: dict[str, float] = {}  # by peer
        self._client_evidence: dict[str, float] = {}  # by client

    def flooding(self, without_call: Iterable[Connection]) -> list[str]:
        """Return the peers that went on sending while the server had the time to see their calls."""
        now_s, cpu_s = time.monotonic(), time.process_time()
        if self._answered < self._round or min(now_s - self._start_s, cpu_s - self._start_cpu_s) < _ROUND_S:
            return []
        read = {one.peer: one.read_bytes for one in without_call}
        first_calls = sum(min(count, _FIRST_CALLS) for count in self._peers_with_calls.copy().values())
        sending = 1.0 if first_calls == self._first_calls else _EVIDENCE_BESIDE_CALLS
        sent = {peer: read_bytes - self._read.get(peer, 0) for peer, read_bytes in read.items()}
        sent_by_client: Counter[str] = Counter()
        for peer, sent_bytes in sent.items():
            sent_by_client[self._client_of(peer)] += sent_bytes
        self._evidence = _added(self._evidence, sent, _MIN_READ_BYTES, sending)
        self._client_evidence = _added(self._client_evidence, sent_by_client, _MIN_CLIENT_READ_BYTES, sending)
        self._read, self._first_calls = read, first_calls
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
    before: Mapping[str, float], sent: Mapping[str, int], least_bytes: int, sending: float
) -> dict[str, float]:
    """Return the evidence after a round in which these bytes were sent; `sending`: that of `least_bytes`."""
    evidence = {
        key: before.get(key, 0.0) + (sending if sent_bytes >= least_bytes else _SILENT_ROUND)
        for key, sent_bytes in sent.items()
    }
    return {key: amount for key, amount in evidence.items() if amount > 0}
