"""`earmark web`: its options, its start and its end."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import ssl
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from earmark_cli.command_line import build_parser
from earmark_cli.usage_error import UsageError
from support.certificates import Authority
from support.earmark_command import RATE_HZ, earmark, running, samples
from websockets.asyncio.client import connect as connect_async
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, InvalidStatus
from websockets.sync.client import connect

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

    from support.earmark_command import Done


@contextmanager
def page(*arguments: str | Path, **variables: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Run the command; yield the address of the page and the process."""
    with running("web", "--port", "0", *arguments, **variables) as process:
        notice = process.stderr.readline().decode()
        assert notice.startswith("earmark: the page is at http"), notice + process.stderr.read().decode()
        yield notice.split()[5].rstrip("/"), process


def rejected(*arguments: str | Path, code: int = 2) -> Done:
    done = earmark("web", "--port", "0", *arguments)
    assert done.returncode == code
    return done


async def streamed(url: str, trusting: ssl.SSLContext) -> list[dict[str, Any]]:
    """Stream the words over TLS; return the events."""
    # Not with a synchronous connection: it reads and writes from two threads, which Python's TLS cannot bear.
    async with connect_async(url.replace("http", "ws") + "/stream", ssl=trusting, origin=url) as stream:
        await stream.send(json.dumps({"sample_rate_hz": RATE_HZ}))
        await stream.send(samples().tobytes())
        await stream.send(json.dumps({"end": True}))
        return [json.loads(message) async for message in stream]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_signal_stops_the_page_also_during_a_stream(
    address: str, number: signal.Signals, code: int
) -> None:
    with page("--server", address) as (url, process):
        assert httpx2.get(f"{url}/health").json() == {"status": "SERVING"}
        with connect(url.replace("http", "ws") + "/stream") as stream:
            stream.send(json.dumps({"sample_rate_hz": RATE_HZ}))
            assert json.loads(stream.recv(60))["event"] == "started"
            process.send_signal(number)
            with pytest.raises(ConnectionClosedError, match="1012"):
                list(stream)
            assert process.wait(60) == code
        assert process.stderr.read() == b""


def test_sigterm_stops_the_page_with_a_server_inside_the_process(tmp_path: Path) -> None:
    with page(TMPDIR=str(tmp_path)) as (url, process):
        assert httpx2.get(f"{url}/health").json() == {"status": "SERVING"}
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert process.stderr.read() == b""
    assert list(tmp_path.iterdir()) == []


def test_with_tls_the_page_is_served_on_any_address(address: str, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.sign()
    secure = ("--https-certificate", pair.certificate, "--https-key", pair.key)
    trusting = ssl.create_default_context(cafile=authority.path)
    with page("--server", address, "--host", "0.0.0.0", *secure) as (url, _):
        assert url.startswith("https://localhost:")
        number = url.replace("localhost", "127.0.0.1")
        assert httpx2.get(f"{number}/health", verify=trusting).json() == {"status": "SERVING"}
        events = asyncio.run(streamed(number, trusting))
        keywords = [event["keyword"] for event in events if event["event"] == "detection"]
        assert keywords == ["low", "mid", "high"]


def test_behind_a_proxy_or_in_a_container_the_page_needs_no_certificate(address: str) -> None:
    with page("--server", address, "--host", "0.0.0.0", "--insecure") as (url, _):
        assert url.startswith("http://localhost:")
        assert httpx2.get(f"{url}/health").json() == {"status": "SERVING"}


PROXY, STRANGER = "127.0.0.2", "127.0.0.3"
BEHIND_PROXY = ("--name", "kws.example.org", "--trusted-proxy", "192.0.2.0/24", "--trusted-proxy", PROXY)


def posted_from(source: str, url: str) -> httpx2.Response:
    """Return the response to a form without a recording that a page with https sends through `source`."""
    headers = {
        "host": "kws.example.org",
        "origin": "https://kws.example.org",
        "x-forwarded-proto": "https",
    }
    with httpx2.Client(transport=httpx2.HTTPTransport(local_address=source)) as client:
        return client.post(f"{url}/spot", headers=headers)


@contextmanager
def streaming_from(source: str, url: str, forwarded_for: str) -> Iterator[dict[str, Any]]:
    """Open a stream of a page with https through `source`; yield its first event."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    headers = {"x-forwarded-proto": "https", "x-forwarded-for": forwarded_for}
    with (
        socket.create_connection((host, int(port)), 60, source_address=(source, 0)) as connection,
        connect(
            "ws://kws.example.org/stream",
            sock=connection,
            origin="https://kws.example.org",
            additional_headers=headers,
        ) as stream,
    ):
        with suppress(ConnectionClosed):  # a stream over the limit ends before its first message
            stream.send(json.dumps({"sample_rate_hz": RATE_HZ}))
        yield json.loads(stream.recv(60))


def test_only_a_trusted_proxy_can_say_that_the_page_was_opened_with_https(address: str) -> None:
    with page("--server", address, *BEHIND_PROXY) as (url, _):
        assert posted_from(PROXY, url).status_code == 400  # the form has no recording
        with streaming_from(PROXY, url, "198.51.100.1") as event:
            assert event["event"] == "started"
        response = posted_from(STRANGER, url)
        assert response.status_code == 403
        assert "add its address with `earmark web --trusted-proxy`" in response.json()["error"]["message"]
        with (
            pytest.raises(InvalidStatus, match="HTTP 403"),
            streaming_from(STRANGER, url, "198.51.100.1"),
        ):
            pass


def test_each_client_of_a_trusted_proxy_has_its_own_limit(address: str) -> None:
    with page("--server", address, *BEHIND_PROXY) as (url, _), ExitStack() as stack:
        # The second proxy, which is trusted too, has appended the address of the first one.
        for number in range(5):
            forwarded_for = f"198.51.100.{number}, 192.0.2.9"
            event = stack.enter_context(streaming_from(PROXY, url, forwarded_for))
            assert event["event"] == "started"
        # What a client writes into the header itself stands before its address, which the proxy appends.
        for number in range(5):
            forged = f"198.51.100.{100 + number}, 203.0.113.7"
            event = stack.enter_context(streaming_from(PROXY, url, forged))
            assert event.get("reason") == (None if number < 4 else "TOO_MANY_STREAMS")


@pytest.mark.parametrize("text", ["*", "proxy.example.org", "10.0.0.1/8", "10.0.0.1,10.0.0.2", ""])
def test_a_trusted_proxy_that_is_no_address_is_wrong_usage(text: str) -> None:
    with pytest.raises(UsageError, match="is neither an IP address nor a network"):
        build_parser().parse_args(["web", "--trusted-proxy", text])


def test_a_message_far_beyond_the_limit_closes_the_websocket(address: str) -> None:
    with page("--server", address) as (url, _), connect(url.replace("http", "ws") + "/stream") as stream:
        stream.send(json.dumps({"sample_rate_hz": RATE_HZ}))
        stream.recv(60)
        stream.send(bytes(1_000_000))
        with pytest.raises(ConnectionClosed) as closed:
            stream.recv(60)
        assert closed.value.rcvd.code == 1009


def test_invalid_requests_are_not_logged(address: str) -> None:
    with page("--server", address) as (url, process):
        form = {"content-type": "multipart/form-data; boundary=x"}
        assert httpx2.post(f"{url}/spot", content=b"no form", headers=form).status_code == 400
        with connect(url.replace("http", "ws") + "/stream") as stream:
            stream.send(b"\xff", text=True)
            with pytest.raises(ConnectionClosed) as closed:
                stream.recv(60)
        assert closed.value.rcvd.code == 1007
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert process.stderr.read() == b""


def test_a_reachable_address_requires_tls() -> None:
    done = rejected("--host", "0.0.0.0")
    assert "--host 0.0.0.0 requires --https-certificate and --https-key" in done.stderr
    assert "browsers permit the microphone only on encrypted pages" in done.stderr


def test_unusable_certificates_are_rejected(address: str, tmp_path: Path) -> None:
    one, other = Authority(tmp_path).sign("one"), Authority(tmp_path).sign("other")
    assert "must be given together" in rejected("--https-key", one.key).stderr
    for certificate, key in ((one.certificate, other.key), (one.certificate, tmp_path / "none")):
        done = rejected("--server", address, "--https-certificate", certificate, "--https-key", key, code=1)
        assert f"{certificate} and {key} must be a PEM certificate and its key" in done.stderr


def test_a_port_in_use_is_reported(address: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as socket_in_use:
        done = earmark("web", "--server", address, "--port", str(socket_in_use.getsockname()[1]))
    assert done.returncode == 1
    assert "Address already in use: give another --port" in done.stderr


def test_a_host_that_cannot_be_listened_on_is_reported(address: str) -> None:
    for host in ("no.invalid", "192.0.2.1"):  # a name of RFC 6761, an address of RFC 5737
        done = earmark("web", "--server", address, "--host", host, "--insecure")
        assert done.returncode == 1
        assert done.stderr.startswith(f"earmark: cannot listen on {host}, port 8080: ")
        assert done.stderr.endswith(": give another --host\n")
    for host in ("127.0.0.1:7", "[::1]", "ipv4:127.0.0.1"):
        done = rejected("--host", host)
        assert "is neither an address nor a name: it has no brackets, and --port sets its port" in done.stderr
    done = earmark("web", "--server", address, "--host", "a..b", "--insecure")
    assert (done.returncode, done.stderr) == (2, "earmark: --host 'a..b' is neither an address nor a name\n")


@pytest.mark.parametrize("arguments", [["--port", "65536"], ["--max-streams", "0"], ["--json"]])
def test_invalid_options_are_wrong_usage(arguments: list[Any]) -> None:
    assert earmark("web", *arguments).returncode == 2


@pytest.mark.slow
def test_silent_connections_do_not_block_the_page(address: str) -> None:
    with page("--server", address) as (url, _), ExitStack() as stack:
        host, _, port = url.removeprefix("http://").rpartition(":")
        silent = [
            stack.enter_context(socket.create_connection((host, int(port)), timeout=60)) for _ in range(250)
        ]
        for connection in silent[::2]:
            connection.sendall(b"GET /health HTTP/1.1\r\nX: ")
        for connection in silent:
            connection.recv(1000)
        assert httpx2.get(f"{url}/health").json() == {"status": "SERVING"}
