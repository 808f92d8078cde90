"""The memory guard closes the connections that use up the memory, and no others."""

from __future__ import annotations

import contextlib
import socket
import sys
import time
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from earmark.v1 import keyword_spotting_service_pb2_grpc as stubs
from earmark_server.memory import guard
from earmark_server.memory.connections import close, connections
from earmark_server.memory.guard import MemoryGuard
from support.deadlines import DEADLINE_S, wait_until
from support.server_process import ServerProcess
from support.server_rig import chunks, config, detections, pcm

from benchmarks.attack import attacked

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems do not list connections")


def connect(port: int, source: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), DEADLINE_S, (source, 0))


def is_closed(connection: socket.socket) -> bool:
    """Return whether the other end has closed a connection; what it has sent is discarded."""
    connection.setblocking(False)
    try:
        while connection.recv(1 << 16):
            pass
    except BlockingIOError:
        return False
    except ConnectionError:
        pass
    return True


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener:
        yield listener


def test_connections_are_listed_with_their_bytes_and_closed(listening: socket.socket) -> None:
    port = listening.getsockname()[1]
    with connect(port) as one, connect(port) as other, socket.create_connection(("::1", port)) as newer:
        accepted = [listening.accept()[0] for _ in range(3)]
        one.sendall(bytes(1000))
        peers = {
            f"ipv4:127.0.0.1:{one.getsockname()[1]}": 1000,
            f"ipv4:127.0.0.1:{other.getsockname()[1]}": 0,
            f"ipv6:[::1]:{newer.getsockname()[1]}": 0,
        }
        wait_until(
            lambda: {each.peer: each.received_bytes for each in connections({port})} == peers, "1000 bytes"
        )
        assert connections({port + 1}) == []
        close({port}, [f"ipv4:127.0.0.1:{one.getsockname()[1]}"])
        wait_until(lambda: is_closed(one), "the end of a connection")
        assert not is_closed(other)
        for each in accepted:
            each.close()


class Guarded:
    """A guard of a listening socket, with memory that the test sets."""

    def __init__(self, listening: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
        self.used_bytes = 0
        self.port = listening.getsockname()[1]
        self._listening = listening
        monkeypatch.setattr(guard, "resident_bytes", lambda: self.used_bytes)
        monkeypatch.setattr(guard, "_LEAST_SHARE", 0.0)
        self.known: set[str] = set()
        self.opened = contextlib.ExitStack()
        self.guard = MemoryGuard({self.port}, lambda: 1 << 30, lambda peer: peer.split(":")[1], self.known)

    def client(self, source: str, sent_bytes: int, *, has_call: bool = True) -> socket.socket:
        client = self.opened.enter_context(connect(self.port, source))
        if has_call:
            self.known.add(f"ipv4:{source}:{client.getsockname()[1]}")
        accepted = self.opened.enter_context(self._listening.accept()[0])
        while sent_bytes:  # a socket buffers only a part
            sent_bytes -= client.send(bytes(min(sent_bytes, 1 << 16)))
            accepted.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while accepted.recv(1 << 20):
                    pass
        return client


@pytest.fixture
def guarded(listening: socket.socket, monkeypatch: pytest.MonkeyPatch) -> Iterator[Guarded]:
    guarded = Guarded(listening, monkeypatch)
    with guarded.opened:
        yield guarded
        guarded.guard.stop()


def test_above_the_limit_the_client_that_sent_the_most_is_closed(guarded: Guarded) -> None:
    greedy = [guarded.client("127.0.0.2", 3_000_000) for _ in range(3)]
    beside = guarded.client("127.0.0.2", 100_000)  # as behind a proxy
    modest = guarded.client("127.0.0.3", 5_000_000)
    guarded.used_bytes = (1 << 30) - 1
    guarded.guard.start()
    time.sleep(5 * guard._CHECK_INTERVAL_S)
    assert not any(is_closed(client) for client in (*greedy, beside, modest))
    guarded.used_bytes += 2
    wait_until(lambda: all(is_closed(client) for client in greedy), "the end of the greedy client")
    guarded.used_bytes = 0
    assert not is_closed(beside)
    assert not is_closed(modest)


def test_bytes_of_long_ago_do_not_count(guarded: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "_WINDOW_S", 0.2)
    old = guarded.client("127.0.0.2", 5_000_000)
    guarded.known.add("ipv4:127.0.0.2:1")
    guarded.guard.start()
    # The peers of connections that have ended are forgotten, those of open ones are not.
    wait_until(lambda: len(guarded.known) == 1, "the next window")
    time.sleep(0.5)
    new = guarded.client("127.0.0.3", 1_000_000, has_call=False)
    guarded.used_bytes = (1 << 30) + 1
    wait_until(lambda: is_closed(new), "the end of the new connection")
    assert not is_closed(old)
    assert guarded.known == {f"ipv4:127.0.0.2:{old.getsockname()[1]}"}


def test_while_the_memory_grows_connections_without_a_call_are_closed(guarded: Guarded) -> None:
    guarded.guard.start()
    without = guarded.client("127.0.0.2", 1_100_000, has_call=False)
    small = guarded.client("127.0.0.2", 1_000_000, has_call=False)
    known = guarded.client("127.0.0.2", 1_100_000)
    time.sleep(5 * guard._CHECK_INTERVAL_S)
    assert not is_closed(without)
    guarded.used_bytes = 17 << 20
    wait_until(lambda: is_closed(without), "the end of the connection without a call")
    assert not is_closed(small)
    assert not is_closed(known)


def test_above_the_limit_connections_without_a_call_are_closed_first(guarded: Guarded) -> None:
    """Behind a proxy, for example, where all connections have one address."""
    useful = guarded.client("127.0.0.2", 5_000_000)
    without = guarded.client("127.0.0.2", 1_100_000, has_call=False)
    guarded.used_bytes = (1 << 30) + 1
    guarded.guard.start()
    wait_until(lambda: is_closed(without), "the end of the connection without a call")
    guarded.used_bytes = 0
    assert not is_closed(useful)


def test_what_a_closed_connection_has_sent_is_discarded(listening: socket.socket) -> None:
    with connect(listening.getsockname()[1]) as client:
        accepted = listening.accept()[0]
        client.sendall(bytes(100_000))
        close({listening.getsockname()[1]}, [f"ipv4:127.0.0.1:{client.getsockname()[1]}"])
        with accepted:
            assert accepted.recv(1) == b""


def test_a_limit_below_the_memory_of_the_models_is_raised(guarded: Guarded) -> None:
    guarded.used_bytes = 1 << 30
    guarded.guard.allow_for_models()
    client = guarded.client("127.0.0.2", 500_000)
    guarded.guard.start()
    guarded.used_bytes += 63 << 20
    time.sleep(5 * guard._CHECK_INTERVAL_S)
    assert not is_closed(client)
    guarded.used_bytes += 2 << 20
    wait_until(lambda: is_closed(client), "the end of the connection")


def test_a_client_that_cannot_hold_the_memory_is_not_closed(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "_LEAST_SHARE", 1 / 8)
    guarded.used_bytes = (1 << 30) - (1 << 20)
    guarded.guard.allow_for_models()
    guarded.used_bytes += 80 << 20
    modest = guarded.client("127.0.0.2", 2_000_000)
    guarded.guard.start()
    time.sleep(5 * guard._CHECK_INTERVAL_S)
    assert not is_closed(modest)
    greedy = guarded.client("127.0.0.3", 11_000_000)
    wait_until(lambda: is_closed(greedy), "the end of the connection")
    assert not is_closed(modest)


def detected(port: int) -> list[Any]:
    with grpc.insecure_channel(f"127.0.0.1:{port}", (("grpc.use_local_subchannel_pool", 1),)) as channel:
        stub = stubs.KeywordSpottingServiceStub(channel)
        requests = iter([config(), *chunks(pcm())])
        return detections(stub.StreamingSpot(requests, timeout=DEADLINE_S))


@pytest.mark.parametrize("name", ["endless-headers", "begun-messages"])
def test_an_attack_on_the_memory_is_cut_off(tiny_model_path: Path, name: str) -> None:
    limit_bytes = 256 << 20
    arguments = (f"--max-memory-bytes={limit_bytes}", f"--model={tiny_model_path}", "--port=0")
    with ServerProcess(*arguments, "--log-format=json") as server:
        port = server.wait_until_serving()
        with attacked(name, f"127.0.0.1:{port}", "", 2 * DEADLINE_S):
            line = server.wait_for("connections closed to save memory")
        assert line["client"] == "clientip:127.0.0.2"
        assert line["limit_mb"] == 256
        assert len(detected(port)) == 4
