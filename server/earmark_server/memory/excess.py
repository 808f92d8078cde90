"""Detects floods on connections with calls: bytes that neither a call nor a message accounts for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Set

    from earmark_server.memory.connections import Connection
    from earmark_server.memory.peers import Peer

_SAMPLED_AT_ONCE = 32
"""Connections are looked at in turns: hundreds of them, all at once, would take several percent of a core."""

_MAX_EXCESS_BYTES = 256 * 1024
"""More than the window of a connection."""

_USUAL_BYTES_PER_S = 256 * 1024
"""What a connection may send for ever without a call: a flood that delays other streams sends far more."""


@dataclass(frozen=True, slots=True)
class _Sample:
    time_s: float
    calls: int
    read_bytes: int
    accounted_bytes: float
    excess_bytes: float


class ExcessDetector:
    """Compares what gRPC has read of a connection with what its calls account for."""

    def __init__(self) -> None:
        self._turn: list[str] = []  # the peers whose turn has yet to come
        self._samples: dict[str, _Sample] = {}  # the last one of each peer

    def next_peers(self, peers: Mapping[str, Peer]) -> Set[str]:
        """Return the peers to look at now."""
        if not self._turn:
            self._turn = list(peers)
            self._samples = {peer: self._samples[peer] for peer in self._turn if peer in self._samples}
        chosen, self._turn = self._turn[:_SAMPLED_AT_ONCE], self._turn[_SAMPLED_AT_ONCE:]
        return set(chosen)

    def flooding(self, opened: list[Connection], peers: Mapping[str, Peer], now_s: float) -> list[str]:
        """Return the peers of these connections that have sent far more than their calls account for."""
        found = []
        for one in opened:
            peer, before = peers[one.peer], self._samples.get(one.peer)
            accounted_bytes, calls = peer.accounted_bytes, peer.calls
            excess_bytes = 0.0
            # While its calls arrive, others may wait for a busy event loop, with what they have sent.
            if before is not None and calls == before.calls:
                sent = one.read_bytes - before.read_bytes - (accounted_bytes - before.accounted_bytes)
                usual = _USUAL_BYTES_PER_S * (now_s - before.time_s)
                excess_bytes = max(0.0, before.excess_bytes + sent - usual)
            self._samples[one.peer] = _Sample(now_s, calls, one.read_bytes, accounted_bytes, excess_bytes)
            if excess_bytes > _MAX_EXCESS_BYTES + peer.pending_bytes:
                found.append(one.peer)
        return found
