"""The guard closes the connections that use up the memory or flood gRPC, and no others."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from earmark.v1 import keyword_spotting_service_pb2 as rpcs
from earmark.v1 import keyword_spotting_service_pb2_grpc as stubs
from earmark_server.memory import guard
from earmark_server.memory.connections import Connections
from earmark_server.memory.guard import MemoryGuard
from support.deadlines import DEADLINE_S, Deadline, wait_until
from support.server_process import ServerProcess
from support.server_rig import LINEAR16, chunks, config, detections, pcm

from benchmarks.attack import attacked
from benchmarks.loadgen import attacks

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
        connections = Connections({port})
        wait_until(
            lambda: {each.peer: each.received_bytes for each in connections.opened()} == peers, "1000 bytes"
        )
        assert {each.peer for each in connections.opened(list(peers)[:2])} == {list(peers)[2]}
        assert Connections({port + 1}).opened() == []
        connections.close([f"ipv4:127.0.0.1:{one.getsockname()[1]}"])
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
        self.peers_with_calls: Counter[str] = Counter()
        self.opened = contextlib.ExitStack()
        self.loop = asyncio.new_event_loop()
        self._accepted: dict[socket.socket, socket.socket] = {}
        self.guard = MemoryGuard(
            {self.port}, lambda: 1 << 30, lambda peer: peer.split(":")[1], self.peers_with_calls, self.loop
        )

    @contextlib.contextmanager
    def running_loop(self) -> Iterator[None]:
        thread = threading.Thread(target=self.loop.run_forever)
        thread.start()
        try:
            yield
        finally:
            self.loop.call_soon_threadsafe(self.loop.stop)
            thread.join()

    def client(self, source: str, sent_bytes: int, *, has_call: bool = True) -> socket.socket:
        client = self.opened.enter_context(connect(self.port, source))
        if has_call:
            self.peers_with_calls[peer_of(client)] += 1
        self._accepted[client] = self.opened.enter_context(self._listening.accept()[0])
        self.send(client, sent_bytes)
        return client

    def send(self, client: socket.socket, sent_bytes: int) -> None:
        accepted = self._accepted[client]
        while sent_bytes:  # a socket buffers only a part
            sent_bytes -= client.send(bytes(min(sent_bytes, 1 << 16)))
            accepted.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while accepted.recv(1 << 20):
                    pass

    def flood(self, client: socket.socket, seconds: float) -> None:
        """Send without a pause; the end of the connection ends it."""
        end_s = time.monotonic() + seconds
        with contextlib.suppress(ConnectionError):
            while time.monotonic() < end_s:
                self.send(client, 1 << 16)
                time.sleep(0.001)


def peer_of(client: socket.socket) -> str:
    host, port = client.getsockname()
    return f"ipv4:{host}:{port}"


@pytest.fixture
def guarded(listening: socket.socket, monkeypatch: pytest.MonkeyPatch) -> Iterator[Guarded]:
    guarded = Guarded(listening, monkeypatch)
    with guarded.opened:
        yield guarded
        guarded.guard.stop()
        guarded.loop.close()


def test_above_the_limit_the_client_that_sent_the_most_is_closed(guarded: Guarded) -> None:
    greedy = [guarded.client("127.0.0.2", 3_000_000) for _ in range(3)]
    beside = guarded.client("127.0.0.2", 100_000)  # as behind a proxy
    modest = guarded.client("127.0.0.3", 5_000_000)
    guarded.used_bytes = (1 << 30) - 1
    guarded.guard.start()
    time.sleep(5 * guard._MIN_INTERVAL_S)
    assert not any(is_closed(client) for client in (*greedy, beside, modest))
    guarded.used_bytes += 2
    wait_until(lambda: all(is_closed(client) for client in greedy), "the end of the greedy client")
    guarded.used_bytes = 0
    assert not is_closed(beside)
    assert not is_closed(modest)


def test_bytes_of_long_ago_do_not_count(guarded: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "_WINDOW_S", 0.2)
    old = guarded.client("127.0.0.2", 5_000_000)
    guarded.peers_with_calls["ipv4:127.0.0.2:1"] += 1
    guarded.guard.start()
    # The peers of connections that have ended are forgotten, those of open ones are not.
    wait_until(lambda: len(guarded.peers_with_calls) == 1, "the next window")
    time.sleep(0.5)
    new = guarded.client("127.0.0.3", 1_000_000, has_call=False)
    guarded.used_bytes = (1 << 30) + 1
    wait_until(lambda: is_closed(new), "the end of the new connection")
    assert not is_closed(old)
    assert guarded.peers_with_calls.keys() == {peer_of(old)}


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every process count as busy."""
    monkeypatch.setattr(guard, "_BUSY_SHARE", -1.0)


@pytest.mark.usefixtures("busy")
def test_a_connection_that_floods_is_closed(guarded: Guarded) -> None:
    without = guarded.client("127.0.0.2", 100_000, has_call=False)
    known = guarded.client("127.0.0.2", 100_000)
    guarded.guard.start()
    with guarded.running_loop():
        guarded.flood(known, 0.5)
        guarded.flood(without, DEADLINE_S)
    assert is_closed(without)
    assert not is_closed(known)


@pytest.mark.usefixtures("busy")
def test_a_connection_that_sends_much_at_once_is_not_closed(guarded: Guarded) -> None:
    """A recording, say, of which the client can send no more until the server reads it."""
    guarded.guard.start()
    with guarded.running_loop():
        recording = guarded.client("127.0.0.2", 8_000_000, has_call=False)
        time.sleep(10 * guard._MIN_INTERVAL_S)
    assert not is_closed(recording)


@pytest.mark.usefixtures("busy")
def test_no_connection_is_closed_before_the_loop_could_admit_its_call(guarded: Guarded) -> None:
    guarded.guard.start()
    with guarded.running_loop():
        blocked = threading.Event()
        guarded.loop.call_soon_threadsafe(blocked.wait)
        early = guarded.client("127.0.0.2", 100_000, has_call=False)
        guarded.flood(early, 10 * guard._MIN_INTERVAL_S)
        assert not is_closed(early)
        guarded.peers_with_calls[peer_of(early)] += 1
        blocked.set()
        guarded.flood(early, 10 * guard._MIN_INTERVAL_S)
        assert not is_closed(early)


def test_above_the_limit_connections_without_a_call_are_closed_first(guarded: Guarded) -> None:
    """Behind a proxy, for example, where all connections have one address."""
    useful = guarded.client("127.0.0.2", 5_000_000)
    without = guarded.client("127.0.0.2", 2_200_000, has_call=False)
    guarded.used_bytes = (1 << 30) + 1
    guarded.guard.start()
    wait_until(lambda: is_closed(without), "the end of the connection without a call")
    guarded.used_bytes = 0
    assert not is_closed(useful)


def test_what_a_closed_connection_has_sent_is_discarded(listening: socket.socket) -> None:
    with connect(listening.getsockname()[1]) as client:
        accepted = listening.accept()[0]
        client.sendall(bytes(100_000))
        Connections({listening.getsockname()[1]}).close([peer_of(client)])
        with accepted:
            assert accepted.recv(1) == b""


def test_a_limit_below_the_memory_of_the_models_is_raised(guarded: Guarded) -> None:
    guarded.used_bytes = 1 << 30
    guarded.guard.allow_for_models()
    client = guarded.client("127.0.0.2", 500_000)
    guarded.guard.start()
    guarded.used_bytes += 63 << 20
    time.sleep(5 * guard._MIN_INTERVAL_S)
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
    time.sleep(5 * guard._MIN_INTERVAL_S)
    assert not is_closed(modest)
    greedy = guarded.client("127.0.0.3", 11_000_000)
    wait_until(lambda: is_closed(greedy), "the end of the connection")
    assert not is_closed(modest)


def detected(port: int) -> list[Any]:
    with grpc.insecure_channel(f"127.0.0.1:{port}", (("grpc.use_local_subchannel_pool", 1),)) as channel:
        stub = stubs.KeywordSpottingServiceStub(channel)
        requests = iter([config(), *chunks(pcm())])
        return detections(stub.StreamingSpot(requests, timeout=DEADLINE_S))


def test_an_attack_on_the_memory_is_cut_off(tiny_model_path: Path) -> None:
    limit_bytes = 256 << 20
    arguments = (f"--max-memory-bytes={limit_bytes}", f"--model={tiny_model_path}", "--port=0")
    with ServerProcess(*arguments, "--log-format=json") as server:
        port = server.wait_until_serving()
        with attacked("begun-messages", f"127.0.0.1:{port}", "", 2 * DEADLINE_S):
            line = server.wait_for("connections closed to save memory")
        assert line["client"] == "clientip:127.0.0.2"
        assert line["limit_mb"] == 256
        assert len(detected(port)) == 4


CLOSED_FLOODS = "flooding connections closed"
CLOSED = {CLOSED_FLOODS, "connections closed to save memory"}
FLOODS = ["pings", "settings", "window-updates", "endless-headers"]


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_is_cut_off(tiny_model_path: Path, name: str) -> None:
    with ServerProcess(f"--model={tiny_model_path}", "--port=0", "--log-format=json") as server:
        port = server.wait_until_serving()
        deadline = Deadline("the end of the flooding connections")
        while not (lines := [line for line in server.pending_lines() if line["event"] == CLOSED_FLOODS]):
            deadline.wait()
            attacks.run(name, f"127.0.0.1:{port}", "", 2.0)
        assert lines[0]["client"] == "clientip:127.0.0.2"
        assert len(detected(port)) == 4


def events_until_the_end(server: ServerProcess) -> set[str]:
    server.process.terminate()
    return {line["event"] for line in server.lines()}


@pytest.mark.parametrize("name", ["full-speed", "short-messages", "lookups"])
def test_useful_clients_at_full_speed_are_not_cut_off(tiny_model_path: Path, name: str) -> None:
    with ServerProcess(f"--model={tiny_model_path}", "--port=0", "--log-format=json") as server:
        attacks.run(name, f"127.0.0.1:{server.wait_until_serving()}", "", 3.0)
        assert not events_until_the_end(server) & CLOSED


def test_long_recordings_on_new_connections_are_not_cut_off(tiny_model_path: Path) -> None:
    """More than the server reads at a time. It rejects them by their length, once it has read them."""
    recording = rpcs.SpotRequest(audio=bytes(16_000_000), audio_format=LINEAR16)

    def status(port: int) -> grpc.StatusCode:
        with grpc.insecure_channel(f"127.0.0.1:{port}", (("grpc.use_local_subchannel_pool", 1),)) as channel:
            call = stubs.KeywordSpottingServiceStub(channel).Spot
            metadata = [(f"x-{i}", "value" * 20) for i in range(40)]
            with pytest.raises(grpc.RpcError) as caught:
                call(recording, timeout=DEADLINE_S, metadata=metadata)
            return caught.value.code()

    with (
        ServerProcess(f"--model={tiny_model_path}", "--port=0", "--log-format=json") as server,
        ThreadPoolExecutor(30) as clients,
    ):
        statuses = set(clients.map(status, [server.wait_until_serving()] * 30))
        assert statuses == {grpc.StatusCode.INVALID_ARGUMENT}
        assert not events_until_the_end(server) & CLOSED
