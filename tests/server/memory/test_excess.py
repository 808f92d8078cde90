"""Bytes of a connection that none of its calls accounts for."""

from __future__ import annotations

import pytest
from earmark_server.memory import excess
from earmark_server.memory.connections import Connection
from earmark_server.memory.excess import ExcessDetector
from earmark_server.memory.peers import Peer

STEP_S = 0.05
MB = 1 << 20


class Traffic:
    """What a peer has sent, in steps of STEP_S."""

    def __init__(self) -> None:
        self.peer = Peer()
        self._detector = ExcessDetector()
        self._read_bytes = 0
        self._now_s = 100.0
        self.floods()

    def floods(self, read_bytes: int = 0, step_s: float = STEP_S) -> bool:
        """Return whether the peer floods once gRPC has read this much more."""
        self._read_bytes += read_bytes
        self._now_s += step_s
        opened = [Connection("peer", self._read_bytes, self._read_bytes)]
        return self._detector.flooding(opened, {"peer": self.peer}, self._now_s) == ["peer"]


@pytest.fixture
def traffic() -> Traffic:
    traffic = Traffic()
    traffic.peer.begin_call(0)
    traffic.floods()
    return traffic


def test_frames_that_are_neither_calls_nor_messages_are_a_flood(traffic: Traffic) -> None:
    assert [traffic.floods(120_000) for _ in range(3)] == [False, False, True]


def test_messages_at_any_speed_are_none(traffic: Traffic) -> None:
    for _ in range(1000):
        traffic.peer.count_message(4 * MB)
        assert not traffic.floods(4 * MB + 4 * MB // 16_384 * 31)


def test_small_messages_are_none(traffic: Traffic) -> None:
    for _ in range(1000):
        for _ in range(1000):
            traffic.peer.count_message(1)
        assert not traffic.floods(1000 * 60)  # frames and TLS, and answers to the events


def test_a_message_may_arrive_in_many_pieces(traffic: Traffic) -> None:
    traffic.peer.begin_call(16 * MB)
    traffic.floods()
    for _ in range(16):
        assert not traffic.floods(MB)
    traffic.peer.count_message(16 * MB)
    traffic.peer.end_call(16 * MB)
    assert not traffic.floods()


def test_what_was_not_read_of_a_cancelled_call_is_no_flood(traffic: Traffic) -> None:
    for _ in range(10):
        traffic.peer.begin_call(2 * MB)
    assert not traffic.floods(15 * MB)
    for _ in range(10):
        traffic.peer.end_call(2 * MB)
    assert not traffic.floods()
    assert [traffic.floods(120_000) for _ in range(3)] == [False, False, True]


def test_beside_an_open_call_a_flood_is_found_too(traffic: Traffic) -> None:
    traffic.peer.begin_call(2 * MB)
    traffic.floods()
    found = [traffic.floods(MB) for _ in range(4)]
    assert found == [False, False, True, True]


def test_messages_of_long_ago_do_not_allow_a_flood(traffic: Traffic) -> None:
    for _ in range(100_000):
        traffic.peer.count_message(1)
    assert not traffic.floods()
    assert [traffic.floods(120_000) for _ in range(3)] == [False, False, True]


def test_while_calls_arrive_others_may_wait_for_a_busy_loop(traffic: Traffic) -> None:
    for _ in range(10):
        traffic.peer.begin_call(0)
        assert not traffic.floods(MB)
    assert [traffic.floods(120_000) for _ in range(3)] == [False, False, True]


def test_little_may_be_sent_for_ever(traffic: Traffic) -> None:
    assert not any(traffic.floods(17, step_s=0.01) for _ in range(10_000))  # a ping every 10 ms
    assert not traffic.floods(50 * MB, step_s=3600.0)


def test_all_connections_are_looked_at_in_turns() -> None:
    detector = ExcessDetector()
    peers = {f"{number}": Peer() for number in range(excess._SAMPLED_AT_ONCE * 2 + 1)}
    turns = [detector.next_peers(peers) for _ in range(4)]
    assert [len(turn) for turn in turns[:3]] == [excess._SAMPLED_AT_ONCE, excess._SAMPLED_AT_ONCE, 1]
    assert set().union(*turns[:3]) == peers.keys()
    assert turns[3] == turns[0]


def test_a_peer_that_has_disconnected_is_forgotten() -> None:
    detector = ExcessDetector()
    peers = {"gone": Peer(), "here": Peer()}
    for _ in range(2):
        detector.next_peers(peers)
        detector.flooding([Connection(peer, 0, 0) for peer in peers], peers, 1.0)
    del peers["gone"]
    detector.next_peers(peers)
    assert detector._samples.keys() == {"here"}
