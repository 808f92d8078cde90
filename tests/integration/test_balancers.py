"""Three servers behind a load balancer from deploy/: streams are distributed and survive their servers."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography.x509 import DNSName
from earmark_client import Client, EarmarkError, Progress, Resumed, Tls
from support.certificates import Authority
from support.deadlines import DEADLINE_S, Deadline, wait_until
from support.name_server import Name
from support.observed_streams import (
    RATE_HZ,
    PausedStream,
    Stream,
    assert_same_events,
    demo,
    run_in_background,
    run_on,
)
from support.ports import free_port
from support.restartable_server import RestartableServer

from benchmarks.loadgen import http2_frames as frames
from benchmarks.loadgen.server_process import cpu_s

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8")

DEPLOY = Path(__file__).parents[2] / "deploy"
HOSTS = ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
ADDED = "127.0.0.4"
CARES = "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig"
SERVICE = "earmark.default.svc.cluster.local"


class Site:
    """Servers with TLS on one port of several addresses, and one host name for all of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority(folder)
        self.front = self.authority.sign("front")
        self.back = self.authority.sign("back", names=(DNSName(SERVICE),))
        self.port, self.front_port = free_port(), free_port()
        self.name = Name(HOSTS, self.port)

    def server(self, host: str) -> RestartableServer:
        tls = (f"--tls-certificate={self.back.certificate}", f"--tls-key={self.back.key}")
        return RestartableServer(None, *tls, host=host, port=self.port)

    def client(self) -> Client:
        return Client(f"127.0.0.1:{self.front_port}", tls=Tls(ca=self.authority.path))

    def config(self, source: str, changes: dict[str, object]) -> Path:
        """Write a configuration from deploy/ with these changes; return its path."""
        text = (DEPLOY / source).read_text()
        for old, new in changes.items():
            assert text.count(old) == 1, old
            text = text.replace(old, str(new))
        path = self.folder / Path(source).name
        path.write_text(text)
        return path


def envoy(site: Site) -> list[object]:
    own = "{address: 0.0.0.0, port_value: 50051}", "{address: 127.0.0.1, port_value: 9901}"
    host, port = site.name.address
    resolver = f"""
          typed_dns_resolver_config:
            name: envoy.network.dns_resolver.cares
            typed_config:
              "@type": {CARES}
              resolvers:
                - socket_address: {{address: {host}, port_value: {port}}}
"""
    path = site.config(
        "envoy/envoy.yaml",
        {
            own[0]: f"{{address: 127.0.0.1, port_value: {site.front_port}}}",
            own[1]: "{address: 127.0.0.1, port_value: 0}",
            f"{{address: {SERVICE}, port_value: 50051}}": f"{{address: {SERVICE}, port_value: {site.port}}}",
            "          dns_refresh_rate: 2s\n": "          dns_refresh_rate: 0.1s" + resolver,
            "/secrets/tls/tls.crt": site.front.certificate,
            "/secrets/tls/tls.key": site.front.key,
            "/secrets/ca/ca.crt": site.authority.path,
        },
    )
    return ["envoy", "-c", path, "--log-level", "warning", "--use-dynamic-base-id", "--concurrency", 2]


def haproxy(site: Site) -> list[object]:
    pem = site.folder / "front-and-key.pem"
    pem.write_bytes(site.front.certificate.read_bytes() + site.front.key.read_bytes())
    host, port = site.name.address
    path = site.config(
        "haproxy/haproxy.cfg",
        {
            "bind :50051": f"bind 127.0.0.1:{site.front_port}",
            f"{SERVICE}:50051": f"{SERVICE}:{site.port}",
            "parse-resolv-conf": f"nameserver here {host}:{port}",
            "/secrets/tls/tls.pem": pem,
            "/secrets/ca/ca.crt": site.authority.path,
        },
    )
    return ["haproxy", "-f", path, "-db"]


def nginx(site: Site) -> list[object]:
    """Return the command. Its servers are a list, which includes the one that is added later."""
    listed = {
        f"server earmark-{number}.example.org:50051": f"server {host}:{site.port}"
        for number, host in enumerate(HOSTS)
    }
    last = f"server {HOSTS[-1]}:{site.port}"
    listed[f"server earmark-{len(HOSTS) - 1}.example.org:50051"] = (
        f"server {ADDED}:{site.port};\n        {last}"
    )
    path = site.config(
        "nginx/nginx.conf",
        {
            "listen 50051": f"listen 127.0.0.1:{site.front_port}",
            **listed,
            "/secrets/tls/tls.crt": site.front.certificate,
            "/secrets/tls/tls.key": site.front.key,
            "/secrets/ca/ca.crt": site.authority.path,
        },
    )
    # Its master process starts others, which must end with it.
    return [
        "nginx",
        "-c",
        path,
        "-e",
        "stderr",
        "-g",
        f"daemon off; master_process off; pid {site.folder}/pid;",
    ]


BALANCERS = {"Envoy": envoy, "HAProxy": haproxy, "nginx": nginx}


def with_each_balancer(quick: str) -> pytest.MarkDecorator:
    """Run a test with each load balancer, with the others than `quick` only among the slow tests."""
    every = [
        pytest.param(make, id=name, marks=[] if name == quick else pytest.mark.slow)
        for name, make in BALANCERS.items()
    ]
    return pytest.mark.parametrize("balancer", every, indirect=True)


@pytest.fixture(params=BALANCERS.values(), ids=BALANCERS.keys())
def balancer(request: pytest.FixtureRequest) -> Callable[[Site], list[object]]:
    make: Callable[[Site], list[object]] = request.param
    if shutil.which(make.__name__) is None:
        pytest.skip(f"{make.__name__} is not installed")
    return make


@contextlib.contextmanager
def running(site: Site, balancer: Callable[[Site], list[object]]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a load balancer in front of the site's servers."""
    command = [*map(str, balancer(site))]
    with (
        site.name,
        (site.folder / "balancer.log").open("wb") as log,
        subprocess.Popen(command, stdout=log, stderr=log) as process,
    ):
        try:
            yield process
        finally:
            process.kill()
            print((site.folder / "balancer.log").read_text())


async def reach_all(client: Client, servers: list[RestartableServer]) -> None:
    """Send calls through the load balancer until each server has received one."""
    deadline = Deadline("calls at every server")
    while not all(server.ended_calls() for server in servers):
        deadline.wait()
        with contextlib.suppress(EarmarkError):
            async for _ in client.stream([bytes(3200)], sample_rate_hz=RATE_HZ):
                pass


@pytest.mark.slow
def test_streams_are_spread_evenly(balancer: Callable[[Site], list[object]], tmp_path: Path) -> None:
    """The streams of one client, over one connection."""
    site, count = Site(tmp_path), 30
    with contextlib.ExitStack() as stack:
        # Before the load balancer starts.
        stack.enter_context(running(site, balancer))
        servers = [stack.enter_context(site.server(host)) for host in HOSTS]

        async def play() -> list[int]:
            async with site.client() as client:
                await reach_all(client, servers)
                before = [server.ended_calls() for server in servers]
                streams = [PausedStream([bytes(3200)] * 2) for _ in range(count)]

                def end() -> None:
                    wait_until(lambda: all(stream.events for stream in streams), "events of all streams")
                    for stream in streams:
                        stream.may_end.set()

                ending = run_in_background(end)
                await run_on(client, streams, sample_rate_hz=RATE_HZ)
                ending.result()
            wait_until(
                lambda: sum(server.ended_calls() for server in servers) == sum(before) + count,
                "ends of all calls",
            )
            return [server.ended_calls() - one for server, one in zip(servers, before, strict=True)]

        shares = asyncio.run(play())
    assert all(abs(share - count / 3) <= 0.2 * count / 3 for share in shares), shares


@with_each_balancer(quick="HAProxy")
def test_added_killed_and_drained_servers_behind_a_balancer_lose_no_detection(
    balancer: Callable[[Site], list[object]], tmp_path: Path
) -> None:
    site, chunks = Site(tmp_path), demo()
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(site.server(host)) for host in HOSTS]
        killed, drained, _ = servers
        added = stack.enter_context(site.server(ADDED))
        stack.enter_context(running(site, balancer))
        streams = [PausedStream(chunks, speed=8.0) for _ in range(9)]
        expected = Stream(chunks)

        def change() -> None:
            wait_until(
                lambda: all(len(stream.of(Progress)) > 3 for stream in streams),
                "progress of all streams",
            )
            site.name.addresses.append(ADDED)
            killed.kill()
            wait_until(
                lambda: sum(bool(stream.of(Resumed)) for stream in streams) >= 2,
                "streams of the killed server that resumed",
            )
            drained.drain()
            assert drained.wait() == 0
            for stream in streams:
                stream.may_end.set()

        async def play() -> None:
            async with site.client() as client:
                await reach_all(client, servers)
                await run_on(client, [expected], sample_rate_hz=RATE_HZ)
                changing = run_in_background(change)
                await run_on(client, streams, sample_rate_hz=RATE_HZ)
                changing.result()
                await reach_all(client, [added])

        asyncio.run(play())
    assert not expected.of(Resumed)
    for stream in streams:
        assert_same_events(stream, expected)


_LONG = b"\x05x-abc\x7f\xe9\x06" + bytes(1000)  # the name and the value of a header of 1 KB
_REFERENCE = b"\xbe"  # to the header that was added last
HEADERS = {
    "of 1 KB": (b"", b"\x10" + _LONG, 16 << 20),
    "of one byte": (b"\x40\x01x\x00", _REFERENCE * 8000, 2 << 20),
    "that refer to one of 1 KB": (b"\x40" + _LONG, _REFERENCE * 8000, 2 << 20),
}
"""What the first frame adds, what each of the others contains, and how many bytes each connection sends."""


@pytest.mark.parametrize("headers", HEADERS)
@with_each_balancer(quick="nginx")
def test_headers_without_an_end_fill_no_memory(
    balancer: Callable[[Site], list[object]], headers: str, tmp_path: Path
) -> None:
    """Of clients that do not acknowledge the settings; gRPC alone would buffer 16 MB for each."""
    site, connections, filled_bytes = Site(tmp_path), 16, 16 << 20
    added, block, sent_bytes = HEADERS[headers]
    first = frames.frame(frames.HEADERS, 0, 1, frames.request_headers("localhost", "/any") + added)
    more = frames.frame(frames.CONTINUATION, 0, 1, block) * (sent_bytes // len(block))
    output = frames.PREFACE + frames.frame(frames.SETTINGS, 0, 0, b"") + first + more
    context = ssl.create_default_context(cafile=site.authority.path)
    context.set_alpn_protocols(["h2"])
    with contextlib.ExitStack() as servers:
        started = [servers.enter_context(site.server(host)) for host in HOSTS]
        process = servers.enter_context(running(site, balancer))
        wait_until(lambda: _is_open(site.front_port), "the load balancer")
        before = _peak_bytes(process.pid)
        with contextlib.ExitStack() as stack:
            for _ in range(connections):
                plain = socket.create_connection(("127.0.0.1", site.front_port), DEADLINE_S)
                attacker = stack.enter_context(context.wrap_socket(plain, server_hostname="127.0.0.1"))
                with contextlib.suppress(OSError):
                    attacker.sendall(output)
            assert _peak_bytes(process.pid) - before < connections * filled_bytes // 4

        async def reach() -> None:
            async with site.client() as client:
                await reach_all(client, started)

        asyncio.run(reach())


FLOODS = {
    "pings": frames.frame(frames.PING, 0, 0, bytes(8)) * 2000,
    "window updates": frames.frame(frames.WINDOW, 0, 0, b"\0\0\0\1") * 2000,
    "settings": frames.frame(frames.SETTINGS, 0, 0, b"") * 2000,
    "priorities": frames.frame(frames.PRIORITIES, 0, 1, b"\0\0\0\0\x10") * 2000,
}


@pytest.mark.slow
@pytest.mark.parametrize("flood", FLOODS)
def test_floods_of_frames_reach_no_server(
    balancer: Callable[[Site], list[object]], flood: str, tmp_path: Path
) -> None:
    """Frames that only occupy gRPC: four connections that send them delay the streams of a server itself."""
    site = Site(tmp_path)
    context = ssl.create_default_context(cafile=site.authority.path)
    context.set_alpn_protocols(["h2"])
    chunks = demo()
    stop = threading.Event()

    def send() -> None:
        while not stop.is_set():
            with contextlib.suppress(OSError):
                plain = socket.create_connection(("127.0.0.1", site.front_port), DEADLINE_S)
                with context.wrap_socket(plain, server_hostname="127.0.0.1") as attacker:
                    attacker.sendall(frames.PREFACE + frames.frame(frames.SETTINGS, 0, 0, b""))
                    while not stop.is_set():
                        attacker.sendall(FLOODS[flood])

    def used_s() -> float:
        return sum(cpu_s(server.pid) or 0 for server in servers)

    async def play(stream: Stream) -> float:
        """Play a stream; return the CPU time of the servers meanwhile."""
        async with site.client() as client:
            before_s = used_s()
            await run_on(client, [stream], sample_rate_hz=RATE_HZ)
            return used_s() - before_s

    async def reach() -> None:
        async with site.client() as client:
            await reach_all(client, servers)

    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(site.server(host)) for host in HOSTS]
        stack.enter_context(running(site, balancer))
        expected, beside = Stream(chunks, speed=4.0), Stream(chunks, speed=4.0)
        asyncio.run(reach())
        alone_s = asyncio.run(play(expected))
        attackers = [threading.Thread(target=send, daemon=True) for _ in range(4)]
        for attacker in attackers:
            attacker.start()
        try:
            beside_s = asyncio.run(play(beside))
        finally:
            stop.set()
            for attacker in attackers:
                attacker.join()
    assert_same_events(beside, expected)
    assert not beside.of(Resumed)
    assert beside_s < 2 * alone_s + 0.5


def _is_open(port: int) -> bool:
    with contextlib.suppress(ConnectionError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def _peak_bytes(pid: int) -> int:
    """Return the peak of the resident memory of a process and its children."""
    text = Path(f"/proc/{pid}/status").read_text()
    (kilobytes,) = re.findall(r"VmHWM:\s+(\d+) kB", text)
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(kilobytes) * 1024 + sum(_peak_bytes(int(child)) for child in children)
