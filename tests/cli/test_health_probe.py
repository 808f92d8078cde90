"""`earmark health` in its lean form: the same answers as the complete command, for little CPU."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import grpc
import pytest
from earmark_cli import health_probe
from earmark_server.credentials.tokens import add_token
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from support.certificates import Authority
from support.earmark_command import earmark, earmark_process, environment
from support.tls_server import serve_with_tls

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def _only_the_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where the complete command would run."""

    def build_parser() -> None:
        raise AssertionError("the probe gave no answer")

    monkeypatch.setattr("earmark_cli.command_line.build_parser", build_parser)


def cpu_s(*command: str, **variables: str) -> float:
    """Return the CPU time of a command that succeeds: the least of five runs, since others use the caches."""
    times = []
    for _ in range(5):
        process = subprocess.Popen(command, env=environment(**variables), stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        times.append(usage.ru_utime + usage.ru_stime)
    return min(times)


@pytest.mark.slow
def test_a_probe_costs_little_cpu_and_imports_neither_grpc_nor_numpy(address: str) -> None:
    imports = cpu_s(sys.executable, "-c", "import grpc, numpy")
    assert cpu_s(sys.executable, "-m", "earmark_cli", "health", "--server", address) < imports / 3
    code = (
        "import sys; from earmark_cli.__main__ import main\n"
        f"assert main(['health', '--server', {address!r}]) == 0\n"
        "assert not {'grpc', 'numpy', 'argparse', 'dataclasses'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=environment(), stdout=subprocess.DEVNULL)


@pytest.mark.usefixtures("_only_the_probe")
def test_a_serving_server(address: str) -> None:
    expected = (0, f"{address}: SERVING\n", "")
    assert earmark("health", "--server", address) == expected
    assert earmark("health", EARMARK_SERVER=address) == expected


@pytest.mark.usefixtures("_only_the_probe")
def test_tls_and_tokens(tiny_model_path: Path, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    tokens = tmp_path / "tokens"
    token = add_token("probe", str(tokens))
    ca = str(authority.path)
    with serve_with_tls(tiny_model_path, authority, token_file=str(tokens)) as server:
        done = earmark("health", "--server", server, EARMARK_CA=ca, EARMARK_TOKEN=token)
        assert done == (0, f"{server}: SERVING\n", "")
        # As a secret of Kubernetes that was made of a file.
        assert earmark("health", "--server", server, EARMARK_CA=ca, EARMARK_TOKEN=f"{token}\n") == done


@pytest.mark.slow
def test_what_the_probe_does_not_answer_the_complete_command_explains(
    tiny_model_path: Path, tmp_path: Path
) -> None:
    authority, stranger = Authority(tmp_path), Authority(tmp_path / "other", "A stranger")
    tokens = tmp_path / "tokens"
    token = add_token("probe", str(tokens))
    with serve_with_tls(tiny_model_path, authority, token_file=str(tokens)) as server:
        ca = str(authority.path)
        for variables, problem in (
            ({"EARMARK_CA": ca}, "requires a token"),
            ({"EARMARK_CA": ca, "EARMARK_TOKEN": "no" + token}, "token"),
            ({"EARMARK_CA": str(stranger.path)}, "certificate"),
            ({"EARMARK_CA": str(tmp_path / "missing")}, "missing"),
            ({}, "TLS"),
        ):
            done = earmark_process("health", "--server", server, **variables)
            assert done.returncode == 1, done
            assert problem in done.stderr, done
            assert len(done.stderr.splitlines()) == 1
    done = earmark_process("health", "--server", "127.0.0.1:1")
    assert done.returncode == 1
    assert "no Earmark server answers" in done.stderr


@pytest.mark.usefixtures("_only_the_probe")
@pytest.mark.parametrize("status", ["UNKNOWN", "NOT_SERVING", "SERVICE_UNKNOWN"])
def test_a_server_that_is_not_serving(status: str) -> None:
    servicer = health.HealthServicer()
    servicer.set("", health_pb2.HealthCheckResponse.ServingStatus.Value(status))
    server = grpc.server(ThreadPoolExecutor(1))
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        assert earmark("health", "--server", address) == (1, f"{address}: {status}\n", "")
    finally:
        server.stop(None)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        bytes(9) * 100,
        b"\xff" * 70_000,
        bytes([0, 0, 7, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 2, 8, 9]),  # a status that does not exist
        bytes([0, 0, 0, 3, 0, 0, 0, 0, 1]),  # RST_STREAM
        bytes([0, 0, 0, 7, 0, 0, 0, 0, 0]),  # GOAWAY
    ],
)
def test_a_wrong_answer_is_none(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_probe, "_TIMEOUT_S", 0.5)
    monkeypatch.delenv("EARMARK_CA", raising=False)
    monkeypatch.delenv("EARMARK_TOKEN", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def respond() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(answer)

        thread = threading.Thread(target=respond)
        thread.start()
        try:
            assert health_probe.probe(["--server", f"127.0.0.1:{listener.getsockname()[1]}"]) is None
        finally:
            thread.join()


@pytest.mark.parametrize(
    "arguments",
    [["--json"], ["--watch"], ["--help"], ["--server"], ["--server", "unix:/x"], ["--server", "host"]],
)
def test_other_options_are_left_to_the_complete_command(arguments: list[str]) -> None:
    assert health_probe.probe(arguments) is None
