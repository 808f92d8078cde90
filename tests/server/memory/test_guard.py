"""The guard closes the connections that use up the memory or flood gRPC, and no others."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from earmark.v1 import keyword_spotting_service_pb2 as rpcs
from earmark.v1 import keyword_spotting_service_pb2_grpc as stubs
from earmark_server.inference.model_sandbox import warm_up
from earmark_server.memory import floods, guard
from earmark_server.memory.connections import Connection, Connections
from earmark_server.memory.floods import FloodDetector
from earmark_server.memory.guard import MemoryGuard
from earmark_server.memory.limit import resident_bytes
from earmark_server.memory.peers import Peers
from earmark_spotter import SpotterModel
from support.deadlines import DEADLINE_S, Deadline, wait_until
from support.server_process import ServerProcess
from support.server_rig import LINEAR16, chunks, config, detections, pcm

from benchmarks.attack import attacked, peak_bytes
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
        accepted[0].recv(300, socket.MSG_WAITALL)
        peers = {
            f"ipv4:127.0.0.1:{one.getsockname()[1]}": (1000, 300),
            f"ipv4:127.0.0.1:{other.getsockname()[1]}": (0, 0),
            f"ipv6:[::1]:{newer.getsockname()[1]}": (0, 0),
        }
        connections = Connections({port})
        wait_until(
            lambda: (
                {each.peer: (each.received_bytes, each.read_bytes) for each in connections.opened()} == peers
            ),
            "1000 bytes",
        )
        assert {each.peer for each in connections.opened(list(peers)[:2])} == {list(peers)[2]}
        assert Connections({port + 1}).opened() == []
        connections.close([f"ipv4:127.0.0.1:{one.getsockname()[1]}"])
        wait_until(lambda: is_closed(one), "the end of a connection")
        assert not is_closed(other)
        for each in accepted:
            each.close()


_UNLIMITED = 1 << 40


class Guarded:
    """A guard of a listening socket, with memory that the test sets."""

    def __init__(self, listening: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
        self.used_bytes = 200 << 20
        self.port = listening.getsockname()[1]
        self._listening = listening
        monkeypatch.setattr(guard, "resident_bytes", lambda: self.used_bytes)
        monkeypatch.setattr(guard, "_LEAST_SHARE", 0.0)
        self.peers = Peers()
        self.opened = contextlib.ExitStack()
        self.loop = asyncio.new_event_loop()
        self._accepted: dict[socket.socket, socket.socket] = {}
        self.guard = MemoryGuard(
            {self.port},
            lambda: 1 << 30,
            lambda peer: peer.split(":")[1],
            self.peers,
            self.loop,
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
            self.peers[peer_of(client)].begin_call(_UNLIMITED)
        self._accepted[client] = self.opened.enter_context(self._listening.accept()[0])
        self.send(client, sent_bytes)
        return client

    def send(self, client: socket.socket, sent_bytes: int, *, is_read: bool = True) -> None:
        accepted = self._accepted[client]
        while sent_bytes:  # a socket buffers only a part
            sent_bytes -= client.send(bytes(min(sent_bytes, 1 << 16)))
            if not is_read:
                continue
            accepted.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while accepted.recv(1 << 20):
                    pass

    def answers(self, source: str) -> bool:
        """Return whether a client can connect."""
        try:
            socket.create_connection(("127.0.0.1", self.port), 0.2, (source, 0)).close()
        except TimeoutError:
            return False
        return True

    def flood(self, client: socket.socket, seconds: float, *, beside_new_clients: bool = False) -> None:
        """Send without a pause; the end of the connection ends it."""
        end_s = time.monotonic() + seconds
        with contextlib.suppress(ConnectionError):
            for number in count():
                if time.monotonic() > end_s:
                    break
                self.send(client, 1 << 16)
                time.sleep(0.001)
                if beside_new_clients:
                    self.peers[f"ipv4:127.0.0.3:{number}"].begin_call(0)


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
    guarded.peers["ipv4:127.0.0.2:1"].begin_call(0)
    guarded.guard.start()
    # The peers of connections that have ended are forgotten, those of open ones are not.
    wait_until(lambda: len(guarded.peers) == 1, "the next window")
    time.sleep(0.5)
    new = guarded.client("127.0.0.3", 1_000_000, has_call=False)
    guarded.used_bytes = (1 << 30) + 1
    wait_until(lambda: is_closed(new), "the end of the new connection")
    assert not is_closed(old)
    assert guarded.peers.keys() == {peer_of(old)}


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


@pytest.mark.slow
@pytest.mark.usefixtures("busy")
def test_a_flood_beside_many_new_clients_is_closed(guarded: Guarded) -> None:
    without = guarded.client("127.0.0.2", 100_000, has_call=False)
    guarded.guard.start()
    with guarded.running_loop():
        guarded.flood(without, DEADLINE_S, beside_new_clients=True)
    assert is_closed(without)


@pytest.mark.slow
@pytest.mark.usefixtures("busy")
def test_a_client_that_floods_is_cut_off_and_kept_out(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "_REFUSED_S", 2.0)
    idle = guarded.client("127.0.0.2", 1000, has_call=False)
    paused = guarded.client("127.0.0.2", 100_000, has_call=False)
    known = guarded.client("127.0.0.2", 100_000)
    other = guarded.client("127.0.0.3", 100_000, has_call=False)
    flooding = guarded.client("127.0.0.2", 100_000, has_call=False)
    guarded.guard.start()
    with guarded.running_loop():
        guarded.flood(flooding, DEADLINE_S)
    assert not guarded.answers("127.0.0.2")
    assert guarded.answers("127.0.0.3")
    assert is_closed(flooding)
    assert is_closed(paused)
    assert not any(is_closed(client) for client in (idle, known, other))
    wait_until(lambda: guarded.answers("127.0.0.2"), "the end of the refusal")


@pytest.mark.usefixtures("busy")
def test_a_connection_that_sends_much_at_once_is_not_closed(guarded: Guarded) -> None:
    """A recording, say, of which the client can send no more until the server reads it."""
    guarded.guard.start()
    with guarded.running_loop():
        recording = guarded.client("127.0.0.2", 8_000_000, has_call=False)
        time.sleep(10 * guard._MIN_INTERVAL_S)
    assert not is_closed(recording)


@pytest.mark.usefixtures("busy")
def test_what_grpc_has_not_read_is_no_flood(guarded: Guarded) -> None:
    """On a busy machine, the threads of gRPC may wait for a core while the kernel receives."""
    guarded.guard.start()
    with guarded.running_loop():
        early = guarded.client("127.0.0.2", 100, has_call=False)
        for _ in range(20):
            guarded.send(early, 40_000, is_read=False)
            end_s = time.monotonic() + guard._MIN_INTERVAL_S
            while time.monotonic() < end_s:  # a process without CPU time ends no round
                pass
    assert not is_closed(early)


@pytest.mark.usefixtures("busy")
def test_no_connection_is_closed_before_the_loop_could_admit_its_call(guarded: Guarded) -> None:
    guarded.guard.start()
    with guarded.running_loop():
        blocked = threading.Event()
        guarded.loop.call_soon_threadsafe(blocked.wait)
        early = guarded.client("127.0.0.2", 100_000, has_call=False)
        guarded.flood(early, 10 * guard._MIN_INTERVAL_S)
        assert not is_closed(early)
        guarded.peers[peer_of(early)].begin_call(_UNLIMITED)
        blocked.set()
        guarded.flood(early, 10 * guard._MIN_INTERVAL_S)
        assert not is_closed(early)


class Rounds:
    """The rounds of a detector, without a clock; all connections are of one client."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(floods, "_ROUND_S", -1.0)
        self._loop = asyncio.new_event_loop()
        self.peers = Peers()
        self._detector = FloodDetector(self.peers, self._loop, lambda _: "proxy")
        self.read: Counter[str] = Counter()

    def flooding(self) -> list[str]:
        """End a round, in which every connection has read as much as the counter has."""
        without_call = [Connection(peer, size, size) for peer, size in self.read.items()]
        found = self._detector.flooding(without_call)
        for _ in range(2 * floods._LOOP_TURNS):
            self._loop.call_soon(self._loop.stop)
            self._loop.run_forever()
        return found

    def close(self) -> None:
        self._loop.close()


@pytest.fixture
def rounds(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rounds]:
    made = Rounds(monkeypatch)
    yield made
    made.close()


def test_a_flood_on_many_connections_is_found(rounds: Rounds) -> None:
    """Each of them sends little, because gRPC reads them in turn."""
    rounds.read["idle"] = 1000
    for number in range(3):
        assert rounds.flooding() == [], number
        rounds.read.update({f"flood {i}": 6000 for i in range(200)})
    assert sorted(rounds.flooding()) == sorted(peer for peer in rounds.read if peer != "idle")


def test_many_clients_of_a_proxy_may_connect_in_each_round(rounds: Rounds) -> None:
    for number in range(20):
        rounds.read.update({f"{number} {i}": 2000 for i in range(100)})
        assert rounds.flooding() == []
    # With client certificates and long metadata they send more, and their calls arrive.
    for number in range(20):
        rounds.read.update({f"long {number} {i}": 12_000 for i in range(100)})
        for i in range(100):
            rounds.peers[f"call {number} {i}"].begin_call(0)
        assert rounds.flooding() == []


def test_above_the_limit_connections_without_a_call_are_closed_first(guarded: Guarded) -> None:
    """Behind a proxy, for example, where all connections have one address."""
    useful = guarded.client("127.0.0.2", 5_000_000)
    without = guarded.client("127.0.0.2", 20_000, has_call=False)
    small = guarded.client("127.0.0.2", 10_000, has_call=False)
    guarded.used_bytes = (1 << 30) + 1
    guarded.guard.start()
    wait_until(lambda: is_closed(without), "the end of the connection without a call")
    guarded.used_bytes = 0
    assert not is_closed(useful)
    assert not is_closed(small)


def test_after_a_shortage_nobody_can_connect_for_a_while(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "_REFUSED_S", 2.0)
    greedy = guarded.client("127.0.0.2", 3_000_000)
    guarded.used_bytes = (1 << 30) + 1
    guarded.guard.start()
    wait_until(lambda: is_closed(greedy), "the end of the greedy client")
    guarded.used_bytes = 0
    assert peer_of(greedy) in guarded.peers.closed
    assert not guarded.answers("127.0.0.3")
    wait_until(lambda: guarded.answers("127.0.0.3"), "the end of the refusal")
    wait_until(lambda: not guarded.peers.closed, "the end of what is known of closed connections")


def test_what_a_closed_connection_has_sent_is_discarded(listening: socket.socket) -> None:
    with connect(listening.getsockname()[1]) as client:
        accepted = listening.accept()[0]
        client.sendall(bytes(100_000))
        Connections({listening.getsockname()[1]}).close([peer_of(client)])
        with accepted:
            assert accepted.recv(1) == b""


def test_a_limit_below_the_memory_of_the_models_is_raised(guarded: Guarded) -> None:
    guarded.used_bytes = 1 << 30
    guarded.guard.allow_for_models(lambda: 0)
    client = guarded.client("127.0.0.2", 500_000)
    guarded.guard.start()
    guarded.used_bytes += 63 << 20
    time.sleep(5 * guard._MIN_INTERVAL_S)
    assert not is_closed(client)
    guarded.used_bytes += 2 << 20
    wait_until(lambda: is_closed(client), "the end of the connection")


def test_the_limit_follows_models_that_are_loaded_and_unloaded(guarded: Guarded) -> None:
    file_bytes = 10 << 20
    guarded.used_bytes = 1 << 30
    guarded.guard.allow_for_models(lambda: file_bytes)
    client = guarded.client("127.0.0.2", 500_000)
    guarded.guard.start()
    file_bytes += 20 << 20
    guarded.used_bytes += (120 + 63) << 20
    time.sleep(5 * guard._MIN_INTERVAL_S)
    assert not is_closed(client)
    file_bytes -= 10 << 20
    wait_until(lambda: is_closed(client), "the end of the connection")


@pytest.mark.slow
def test_the_memory_of_a_model_is_estimated_from_the_length_of_its_file() -> None:
    content, models = SpotterModel.read(), [SpotterModel.load()]
    before_bytes = resident_bytes()
    for _ in range(3):
        models.append(SpotterModel(content))
        warm_up(models[-1])
    grown_bytes = resident_bytes() - before_bytes
    assert grown_bytes < 3 * guard._MEMORY_PER_FILE_BYTE * len(content)


def test_a_client_that_cannot_hold_the_memory_is_not_closed(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "_LEAST_SHARE", 1 / 8)
    guarded.used_bytes = (1 << 30) - (1 << 20)
    guarded.guard.allow_for_models(lambda: 0)
    guarded.used_bytes += 80 << 20
    modest = guarded.client("127.0.0.2", 2_000_000)
    guarded.guard.start()
    time.sleep(5 * guard._MIN_INTERVAL_S)
    assert not is_closed(modest)
    greedy = guarded.client("127.0.0.3", 11_000_000)
    wait_until(lambda: is_closed(greedy), "the end of the connection")
    assert not is_closed(modest)


def test_connections_that_the_event_loop_reports_are_closed_with_the_like(guarded: Guarded) -> None:
    useful = guarded.client("127.0.0.2", 500_000)
    idle = guarded.client("127.0.0.2", 1000, has_call=False)
    alike = guarded.client("127.0.0.2", 50_000, has_call=False)
    reported = guarded.client("127.0.0.2", 50_000, has_call=False)
    guarded.peers.flooding.add(peer_of(reported))
    guarded.guard.start()
    wait_until(lambda: is_closed(reported), "the end of the connection")
    wait_until(lambda: is_closed(alike), "the end of the other connection")
    wait_until(lambda: not guarded.peers.flooding, "the answer of the guard")
    assert not is_closed(useful)
    assert not is_closed(idle)


def detected(port: int) -> list[Any]:
    """Spot the words of a recording.

    After calls that were opened and reset, gRPC cancels new calls for some seconds (docs/limits.md).
    """
    deadline = Deadline("a call that is not cancelled")
    while True:
        try:
            return detected_at_once(port)
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.CANCELLED:  # type: ignore[attr-defined]
                raise
            deadline.wait()


def detected_at_once(port: int) -> list[Any]:
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


SERVICE = "earmark.v1.KeywordSpottingService"
CLOSED_FLOODS = "flooding connections closed"
CLOSED = {CLOSED_FLOODS, "connections closed to save memory"}
SLOW = pytest.mark.slow
FLOODS = [
    "pings",
    "endless-headers",
    "pings-after-calls",
    pytest.param("settings", marks=SLOW),
    pytest.param("window-updates", marks=SLOW),
    pytest.param("updates-beside-calls", marks=SLOW),
    pytest.param("repeated-headers", marks=SLOW),
    pytest.param("resets", marks=SLOW),
]


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


@pytest.mark.slow
@pytest.mark.parametrize("name", ["endless-headers", "short-headers"])
def test_headers_without_an_end_do_not_use_up_the_memory(tiny_model_path: Path, name: str) -> None:
    """gRPC holds the headers of closed connections for long: of an attack, several hundred MB a second."""
    arguments = (f"--max-memory-bytes={700 << 20}", f"--model={tiny_model_path}", "--port=0")
    with ServerProcess(*arguments, "--log-format=json") as server:
        attacks.run(name, f"127.0.0.1:{server.wait_until_serving()}", "", 8.0)
        peak = peak_bytes(server.process.pid)
    assert peak is not None
    assert peak < 1 << 30


def events_until_the_end(server: ServerProcess) -> set[str]:
    server.process.terminate()
    return {line["event"] for line in server.lines()}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["full-speed", "short-messages", "lookups"])
def test_legitimate_clients_at_full_speed_are_not_cut_off(tiny_model_path: Path, name: str) -> None:
    with ServerProcess(f"--model={tiny_model_path}", "--port=0", "--log-format=json") as server:
        attacks.run(name, f"127.0.0.1:{server.wait_until_serving()}", "", 3.0)
        assert not events_until_the_end(server) & CLOSED


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "token", "status"),
    [
        ("Spot", "another", grpc.StatusCode.UNAUTHENTICATED),
        ("Unknown", "right", grpc.StatusCode.UNIMPLEMENTED),
        ("Unknown", "another", grpc.StatusCode.UNAUTHENTICATED),
    ],
)
def test_rejected_calls_on_a_connection_that_others_use_are_no_flood(
    tiny_model_path: Path, tmp_path: Path, method: str, token: str, status: grpc.StatusCode
) -> None:
    """Behind a proxy, clients share connections."""
    tokens = tmp_path / "tokens"
    tokens.write_text(f"someone {hashlib.sha256(b'right').hexdigest()}\n")
    tokens.chmod(0o600)
    recording = rpcs.SpotRequest(audio=bytes(4_000_000), audio_format=LINEAR16)
    arguments = (f"--token-file={tokens}", f"--model={tiny_model_path}", "--port=0", "--log-format=json")
    with ServerProcess(*arguments, "--insecure") as server:
        with grpc.insecure_channel(f"127.0.0.1:{server.wait_until_serving()}") as channel:

            def call(name: str, bearer: str) -> grpc.Future:
                metadata = [("authorization", f"Bearer {bearer}")]
                serialize = rpcs.SpotRequest.SerializeToString
                upload = channel.unary_unary(f"/{SERVICE}/{name}", serialize)
                return upload.future(recording, timeout=DEADLINE_S, metadata=metadata)

            for _ in range(25):
                rejected = [call(method, token) for _ in range(8)]
                call("Spot", "right").result()
                assert {each.code() for each in rejected if each.exception()} == {status}
        assert not events_until_the_end(server) & CLOSED
