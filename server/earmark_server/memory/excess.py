"""Detects floods on connections with calls: bytes that no call accounts for, or calls that are all cancelled.

An open call may have sent most of a message, up to the limit on its size. Such bytes occupy memory until the
message is complete, and frames do not. So all connections together cannot have begun messages of more bytes
than the process occupies.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from earmark_server.memory.peers import WINDOW_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from earmark_server.memory.connections import Connection
    from earmark_server.memory.peers import Peer

_SAMPLED_AT_ONCE = 32
"""Connections are looked at in turns: hundreds of them, all at once, would take several percent of a core."""

_MAX_EXCESS_BYTES = WINDOW_BYTES + 256 * 1024
"""More than the window of a connection: a call may wait for a busy event loop, with what it has sent."""

_USUAL_BYTES_PER_S = 256 * 1024
"""What a connection may send for ever without a call: a flood that delays other streams sends far more."""

_CALL_BYTES = 64 * 1024
"""More than the headers of a call."""

_QUEUE_S = 0.5
_MAX_QUEUED_CALLS = 8
"""As many calls as have arrived in about this time, but no more than these, may wait for a busy event loop.
If they are cancelled meanwhile, each makes room for another in the window of the connection."""

_FORGIVEN_BYTES = 512 << 20
_FORGIVEN_BYTES_PER_S = 32 << 20
"""What ended calls of a client may have sent that was not read, at once and all the time: recordings that
were cancelled, behind a proxy those of many clients. A flood that opens and resets calls sends more."""


@dataclass(frozen=True, slots=True)
class _Sample:
    time_s: float
    calls: int
    read_bytes: int
    accounted_bytes: float
    ended_bytes: int
    excess_bytes: float
    recent_calls: float

    @property
    def begun_bytes(self) -> float:
        """What only messages that have begun can account for."""
        queued_bytes = WINDOW_BYTES * min(self.recent_calls, _MAX_QUEUED_CALLS)
        return self.excess_bytes - _MAX_EXCESS_BYTES - queued_bytes


@dataclass(slots=True)
class _Forgiveness:
    """What the ended calls of a client may have sent from now on that was not read."""

    time_s: float
    left_bytes: float = _FORGIVEN_BYTES

    def take(self, wanted_bytes: float, now_s: float) -> float:
        """Return as much of these bytes as there is left, and take it."""
        self.left_bytes += _FORGIVEN_BYTES_PER_S * (now_s - self.time_s)
        self.left_bytes = min(self.left_bytes, _FORGIVEN_BYTES)
        self.time_s = now_s
        taken_bytes = min(wanted_bytes, self.left_bytes)
        self.left_bytes -= taken_bytes
        return taken_bytes


class ExcessDetector:
    """Compares what gRPC has read of a connection with what its calls account for."""

    def __init__(self, client_of: Callable[[str], str]) -> None:
        """`client_of` returns the client that the connections of a peer belong to."""
        self._client_of = client_of
        self._turn: list[str] = []  # the peers whose turn has yet to come
        self._chosen: frozenset[str] = frozenset()  # those whose turn it is
        self._was_more_than_held = False  # when all had had their turn the last time
        self._samples: dict[str, _Sample] = {}  # the last one of each peer
        self._forgiveness: dict[str, _Forgiveness] = {}  # by client

    def next_peers(self, peers: Mapping[str, Peer]) -> frozenset[str]:
        """Return the peers to look at now."""
        if not self._turn:
            self._turn = list(peers)
            self._samples = {peer: self._samples[peer] for peer in self._turn if peer in self._samples}
            clients = {self._client_of(peer) for peer in self._turn}
            self._forgiveness = {c: left for c, left in self._forgiveness.items() if c in clients}
        chosen, self._turn = self._turn[:_SAMPLED_AT_ONCE], self._turn[_SAMPLED_AT_ONCE:]
        self._chosen = frozenset(chosen)
        return self._chosen

    def flooding(
        self, opened: list[Connection], peers: Mapping[str, Peer], now_s: float, *, used_bytes: int
    ) -> list[str]:
        """Return the peers of these connections that flood gRPC.

        used_bytes: the memory of the process.
        """
        found = []
        for one in opened:
            peer = peers[one.peer]
            # Read before the sample is taken: a call that ends meanwhile must not be left out of both.
            pending_bytes = peer.pending_bytes
            sample = self._samples[one.peer] = self._sample(one, peer, now_s)
            if sample.begun_bytes > pending_bytes or peer.only_cancels(now_s):
                found.append(one.peer)
        for disconnected in self._chosen.difference(one.peer for one in opened):
            self._samples.pop(disconnected, None)
        return found if found or self._turn else self._more_than_held(used_bytes)

    def _sample(self, one: Connection, peer: Peer, now_s: float) -> _Sample:
        """Return what gRPC has read of a connection by now, and what of it the calls do not account for."""
        before = self._samples.get(one.peer)
        accounted_bytes, ended_bytes, calls = peer.accounted_bytes, peer.ended_bytes, peer.calls
        excess_bytes, recent_calls = 0.0, float(calls)
        if before is not None:
            sent = one.read_bytes - before.read_bytes - (accounted_bytes - before.accounted_bytes)
            passed_s, new_calls = now_s - before.time_s, calls - before.calls
            usual = _USUAL_BYTES_PER_S * passed_s + _CALL_BYTES * new_calls
            recent_calls = before.recent_calls * math.exp(-passed_s / _QUEUE_S) + new_calls
            excess_bytes = max(0.0, before.excess_bytes + sent - usual)
            forgiveness = self._forgiveness.setdefault(self._client_of(one.peer), _Forgiveness(now_s))
            excess_bytes -= forgiveness.take(min(excess_bytes, ended_bytes - before.ended_bytes), now_s)
        return _Sample(now_s, calls, one.read_bytes, accounted_bytes, ended_bytes, excess_bytes, recent_calls)

    def _more_than_held(self, used_bytes: int) -> list[str]:
        """Return the peers of one client if twice in a row all have begun more than the process holds."""
        begun = {peer: one.begun_bytes for peer, one in self._samples.items() if one.begun_bytes > 0}
        was_more, self._was_more_than_held = self._was_more_than_held, sum(begun.values()) > used_bytes
        if not (was_more and self._was_more_than_held):
            return []
        by_client: Counter[str] = Counter()
        for peer, sent_bytes in begun.items():
            by_client[self._client_of(peer)] += int(sent_bytes)
        client = by_client.most_common(1)[0][0]
        return [peer for peer in begun if self._client_of(peer) == client]
