"""The limit on metadata, also for clients that do not acknowledge it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import hpack
import pytest
from earmark_client import SyncClient
from earmark_server.rpc.admission import Admission
from earmark_server.rpc.metadata_limit import MetadataLimit
from earmark_server.settings import Settings
from support.deadlines import DEADLINE_S, Deadline
from support.server_process import ServerProcess

from benchmarks.loadgen import http2_frames as frames

if TYPE_CHECKING:
    from pathlib import Path

METHOD = "/earmark.v1.KeywordSpottingService/ListModels"


ACCEPTED = object()


def handled(*metadata: tuple[str, str | bytes]) -> Any:
    """Return the handler of a call with these metadata, under a limit of 100 bytes."""

    async def accept(_: object) -> object:
        return ACCEPTED

    details: Any = SimpleNamespace(method=METHOD, invocation_metadata=metadata)
    return asyncio.run(MetadataLimit(100, Admission(Settings())).intercept_service(accept, details))


@pytest.mark.parametrize("metadata", [(), (("k", "v" * 67),), (("k", b"v" * 17), ("key", "v" * 15))])
def test_metadata_within_the_limit_are_accepted(metadata: tuple[tuple[str, str]]) -> None:
    assert handled(*metadata) is ACCEPTED


@pytest.mark.parametrize(
    "metadata", [(("k", "v" * 68),), (("k", b"v" * 18), ("key", "v" * 15)), (("k", ""),) * 4]
)
def test_metadata_above_the_limit_are_rejected(metadata: tuple[tuple[str, str]]) -> None:
    assert handled(*metadata) is not ACCEPTED


def connect(port: int, source: str) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), DEADLINE_S, (source, 0))


def call_with_very_many_headers(*more: tuple[str, str]) -> bytes:
    block = hpack.Encoder().encode([(name, value, True) for name, value in more])
    block = frames.request_headers("localhost", METHOD) + block + b"\x40\x01x\x00" + b"\xbe" * 40_000
    first, rest = block[:8], block[8:]
    continued = [rest[i : i + 16_384] for i in range(0, len(rest), 16_384)]
    return b"".join(
        (
            frames.PREFACE,
            frames.frame(frames.SETTINGS, 0, 0, b""),
            frames.frame(frames.HEADERS, frames.END_STREAM, 1, first),
            *(frames.frame(frames.CONTINUATION, 0, 1, each) for each in continued),
            frames.frame(frames.CONTINUATION, frames.END_HEADERS, 1, b""),
        )
    )


def flood_until_closed(server: ServerProcess, port: int, source: str) -> None:
    """Send such calls until the guard has closed a connection: some of them gRPC rejects itself."""
    deadline = Deadline("the end of the connection")
    closed = "flooding connections closed", f"clientip:{source}"
    while closed not in [(line["event"], line.get("client")) for line in server.pending_lines()]:
        deadline.wait()
        with contextlib.suppress(OSError), connect(port, source) as connection:
            connection.sendall(call_with_very_many_headers())
            connection.settimeout(1.0)
            while connection.recv(65536):
                pass


@pytest.mark.parametrize("needs_token", [False, True])
def test_metadata_of_very_many_entries_are_reported_as_a_flood(
    tiny_model_path: Path, tmp_path: Path, needs_token: bool
) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(f"useful {'0' * 64}\n")
    arguments = [f"--token-file={tokens}"] if needs_token else []
    arguments += ["--port=0", f"--model={tiny_model_path}", "--log-format=json"]
    with ServerProcess(*arguments) as server:
        flood_until_closed(server, server.wait_until_serving(), "127.0.0.2")


@pytest.mark.parametrize("deadline", ["1n", "5m", "20m"])
def test_they_are_cut_off_also_if_the_call_is_cancelled_meanwhile(
    tiny_model_path: Path, deadline: str
) -> None:
    """gRPC forgets the peer of a cancelled call. The guard must go on, and so must other calls."""
    with ServerProcess("--port=0", f"--model={tiny_model_path}", "--log-format=json") as server:
        port = server.wait_until_serving()
        for number in range(2, 5):
            with connect(port, f"127.0.0.{number}") as connection:
                connection.sendall(call_with_very_many_headers(("grpc-timeout", deadline)))
                with contextlib.suppress(ConnectionResetError):
                    connection.recv(65536)
        with SyncClient(f"127.0.0.1:{port}") as client:
            for _ in range(3):
                assert client.list_models()
        flood_until_closed(server, port, "127.0.0.5")


def test_they_are_rejected_on_a_unix_socket(tiny_model_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with ServerProcess(f"--host=unix:{path}", f"--model={tiny_model_path}", "--log-format=json") as server:
        server.wait_for("serving")
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(DEADLINE_S)
            connection.connect(str(path))
            connection.sendall(call_with_very_many_headers())
            answer = b""
            while b"grpc-status\x018" not in answer:  # RESOURCE_EXHAUSTED
                received = connection.recv(65536)
                assert received, answer
                answer += received
        with SyncClient(f"unix:{path}") as client:
            assert client.list_models()


@pytest.mark.parametrize("method", [METHOD, "/grpc.health.v1.Health/Check", "/no.such/Method"])
def test_a_client_that_has_not_acknowledged_the_limit_is_rejected(tiny_model_path: Path, method: str) -> None:
    header = b"\x40\x01x\x7f\xe9\x06" + b"v" * 1000
    headers = frames.request_headers("localhost", method) + header + b"\xbe" * 20
    whole = frames.frame(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, 1, headers)
    with ServerProcess("--port=0", f"--model={tiny_model_path}", "--log-format=json") as server:
        address = "127.0.0.1", server.wait_until_serving()
        with socket.create_connection(address, DEADLINE_S) as connection:
            settings = frames.frame(frames.SETTINGS, 0, 0, b"")
            connection.sendall(frames.PREFACE + settings + whole)
            answer = b""
            while b"The metadata are longer than 8192 bytes" not in answer:
                received = connection.recv(65536)
                assert received, answer
                answer += received
        assert not server.pending_lines()
