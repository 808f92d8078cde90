"""Bytes of a connection that none of its calls accounts for."""

from __future__ import annotations

import pytest
from earmark_server.memory import excess
from earmark_server.memory.connections import Connection
from earmark_server.memory.excess import ExcessDetector
from earmark_server.memory.peers import Peer

STEP_S = 0.05
MB = 1 << 20


def client_of(peer: str) -> str:
    return peer.split(":", maxsplit=1)[0]


class Traffic:
    """What a peer has sent, in steps of STEP_S."""

    def __init__(self) -> None:
        self.peer = Peer()
        self._detector = ExcessDetector(client_of)
        self._read_bytes = 0
        self.now_s = 100.0
        self.floods()

    def wait(self) -> None:
        """Let the time pass in which calls may wait for the event loop."""
        assert not self.floods(step_s=10.0)

    def floods(self, read_bytes: int = 0, step_s: float = STEP_S) -> bool:
        """Return whether the peer floods once gRPC has read this much more."""
        self._read_bytes += read_bytes
        self.now_s += step_s
        opened = [Connection("peer", self._read_bytes, self._read_bytes)]
        found = self._detector.flooding(opened, {"peer": self.peer}, self.now_s, used_bytes=1 << 40)
        return found == ["peer"]


@pytest.fixture
def traffic() -> Traffic:
    traffic = Traffic()
    traffic.peer.begin_call(0)
    traffic.floods()
    traffic.wait()
    return traffic


def test_frames_that_are_neither_calls_nor_messages_are_a_flood(traffic: Traffic) -> None:
    assert [traffic.floods(600_000) for _ in range(3)] == [False, False, True]


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
    traffic.wait()
    assert [traffic.floods(600_000) for _ in range(3)] == [False, False, True]


def test_beside_an_open_call_a_flood_is_found_too(traffic: Traffic) -> None:
    traffic.peer.begin_call(2 * MB)
    assert not traffic.floods()
    traffic.wait()
    found = [traffic.floods(3 * MB // 2) for _ in range(4)]
    assert found == [False, False, True, True]


def test_messages_of_long_ago_do_not_allow_a_flood(traffic: Traffic) -> None:
    for _ in range(100_000):
        traffic.peer.count_message(1)
    traffic.wait()
    assert [traffic.floods(600_000) for _ in range(3)] == [False, False, True]


def test_while_calls_arrive_others_may_wait_for_a_busy_loop(traffic: Traffic) -> None:
    for _ in range(1000):
        traffic.peer.begin_call(0)
        assert not traffic.floods(64 * 1024)
    traffic.wait()
    assert [traffic.floods(600_000) for _ in range(3)] == [False, False, True]


def test_calls_that_are_opened_and_reset_hide_no_flood(traffic: Traffic) -> None:
    found = []
    for _ in range(300):
        traffic.peer.begin_call(17 * MB)
        traffic.peer.end_call(17 * MB)
        found.append(traffic.floods(8 * MB))
    assert not any(found[:50])
    assert any(found)


def test_large_messages_may_be_cancelled_all_the_time(traffic: Traffic) -> None:
    for _ in range(100):
        traffic.peer.begin_call(17 * MB)
        assert not traffic.floods(15 * MB)
        traffic.peer.end_call(17 * MB)
        assert not traffic.floods(step_s=1.0)


def test_calls_now_and_then_hide_no_flood(traffic: Traffic) -> None:
    found = []
    for _ in range(100):
        traffic.peer.begin_call(MB)
        found.append(traffic.floods(4 * MB))
    assert found[-1]


def test_calls_that_were_cancelled_may_wait_for_a_busy_loop(traffic: Traffic) -> None:
    """They have made room in the window of the connection, each up to 1 MB."""
    for _ in range(50):
        for _ in range(8):
            traffic.peer.begin_call(17 * MB)
            traffic.peer.end_call(17 * MB)
        assert not traffic.floods(MB, step_s=0.1)
        assert not traffic.floods(6 * MB, step_s=0.1)  # six more, while the loop is busy


def test_a_call_may_wait_for_a_busy_loop_with_what_it_has_sent(traffic: Traffic) -> None:
    for _ in range(100):
        assert not traffic.floods(MB)
        traffic.peer.begin_call(17 * MB)
        traffic.peer.count_message(MB)
        traffic.peer.end_call(17 * MB)
        assert not traffic.floods()


def test_little_may_be_sent_for_ever(traffic: Traffic) -> None:
    assert not any(traffic.floods(17, step_s=0.01) for _ in range(10_000))  # a ping every 10 ms
    assert not traffic.floods(50 * MB, step_s=3600.0)


def test_calls_with_a_wrong_token_may_share_a_connection(traffic: Traffic) -> None:
    for _ in range(1000):
        traffic.peer.count_rejected_call()
        assert not traffic.floods(MB)


def cancel(traffic: Traffic, count: int) -> None:
    for _ in range(count):
        traffic.peer.begin_call(2 * MB)
        traffic.peer.count_cancelled_call(traffic.now_s)
        traffic.peer.end_call(2 * MB)


def test_calls_that_are_all_cancelled_at_once_are_a_flood(traffic: Traffic) -> None:
    cancel(traffic, 63)
    assert not traffic.floods(step_s=0.3)
    cancel(traffic, 1)
    assert traffic.floods()


def test_a_moment_of_cancelled_calls_is_none(traffic: Traffic) -> None:
    """Behind a proxy, live streams of other clients may send a message at any moment."""
    cancel(traffic, 100)
    assert not traffic.floods(step_s=0.1)
    traffic.peer.count_message(640)
    assert not traffic.floods(step_s=0.2)


def test_calls_may_be_cancelled_now_and_then(traffic: Traffic) -> None:
    for _ in range(100):
        cancel(traffic, 30)
        assert not traffic.floods(step_s=0.6)


def test_calls_may_be_cancelled_among_messages(traffic: Traffic) -> None:
    for _ in range(100):
        cancel(traffic, 100)
        traffic.peer.count_message(640)
        assert not traffic.floods()


def test_calls_that_were_cancelled_a_while_ago_are_forgotten(traffic: Traffic) -> None:
    cancel(traffic, 100)
    assert not traffic.floods(step_s=5.0)


class Many:
    """Peers that have all begun calls: ten of client a, one of client b, looked at in turns."""

    def __init__(self) -> None:
        self.peers = {name: Peer() for name in ("b:0", *(f"a:{number}" for number in range(10)))}
        for peer in self.peers.values():
            peer.begin_call(17 * MB)
        self._detector = ExcessDetector(client_of)
        self._read_bytes = dict.fromkeys(self.peers, 0)
        self.now_s = 100.0
        self.floods({}, 1 << 40)
        self.now_s += 10.0  # the time in which calls may wait for the event loop
        self.floods({}, 1 << 40)

    def floods(self, read_bytes: dict[str, int], used_bytes: int) -> set[str]:
        """Return the peers that flood once gRPC has read this much more, and all had their turn."""
        found: list[str] = []
        for peer, more_bytes in read_bytes.items():
            self._read_bytes[peer] += more_bytes
        for _ in range(-(-len(self.peers) // excess._SAMPLED_AT_ONCE)):
            self.now_s += STEP_S
            chosen = self._detector.next_peers(self.peers)
            opened = [
                Connection(peer, *[self._read_bytes[peer]] * 2) for peer in chosen if peer in self._read_bytes
            ]
            found += self._detector.flooding(opened, self.peers, self.now_s, used_bytes=used_bytes)
        return set(found)

    def disconnect(self) -> None:
        """Disconnect all, which the guard notices later."""
        self._read_bytes.clear()


@pytest.fixture(params=[excess._SAMPLED_AT_ONCE, 4])
def many(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Many:
    monkeypatch.setattr(excess, "_SAMPLED_AT_ONCE", request.param)
    return Many()


def test_the_messages_that_have_begun_are_in_memory(many: Many) -> None:
    sent = dict.fromkeys(many.peers, 15 * MB)
    assert many.floods(sent, 200 * MB) == set()
    assert [many.floods({}, 200 * MB) for _ in range(10)] == [set()] * 10


def test_what_all_have_sent_but_is_not_in_memory_was_a_flood(many: Many) -> None:
    sent = {peer: 9 * MB if peer.startswith("a:") else 15 * MB for peer in many.peers}
    assert many.floods(sent, 90 * MB) == set()
    assert many.floods({}, 90 * MB) == {f"a:{number}" for number in range(10)}


def test_memory_of_messages_that_were_read_meanwhile_is_no_flood(many: Many) -> None:
    sent = dict.fromkeys(many.peers, 15 * MB)
    assert many.floods(sent, 200 * MB) == set()
    assert many.floods({}, 100 * MB) == set()  # some were read after their turn
    for peer in many.peers.values():
        peer.count_message(15 * MB)
    assert many.floods({}, 10 * MB) == set()


def test_memory_of_clients_that_have_disconnected_is_no_flood(many: Many) -> None:
    sent = dict.fromkeys(many.peers, 15 * MB)
    assert many.floods(sent, 200 * MB) == set()
    many.disconnect()
    assert [many.floods({}, 10 * MB) for _ in range(3)] == [set()] * 3


def test_all_connections_are_looked_at_in_turns() -> None:
    detector = ExcessDetector(client_of)
    peers = {f"{number}": Peer() for number in range(excess._SAMPLED_AT_ONCE * 2 + 1)}
    turns = [detector.next_peers(peers) for _ in range(4)]
    assert [len(turn) for turn in turns[:3]] == [excess._SAMPLED_AT_ONCE, excess._SAMPLED_AT_ONCE, 1]
    assert set().union(*turns[:3]) == peers.keys()
    assert turns[3] == turns[0]


def test_a_peer_that_has_disconnected_is_forgotten() -> None:
    detector = ExcessDetector(client_of)
    peers = {"gone": Peer(), "here": Peer()}
    for _ in range(2):
        detector.next_peers(peers)
        opened = [Connection(peer, 0, 0) for peer in peers]
        detector.flooding(opened, peers, 1.0, used_bytes=0)
    del peers["gone"]
    detector.next_peers(peers)
    assert detector._samples.keys() == {"here"}
