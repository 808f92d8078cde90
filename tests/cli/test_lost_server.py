"""A server that stops while a command uses it."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from earmark_client import Health, ServerUnreachableError, SyncClient
from support.earmark_command import RATE_HZ, earmark_process, running, samples

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def _server_process(model: Path, *args: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Run a server that can be killed; yield it and its address once it is serving."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    command = [sys.executable, "-m", "earmark_server", "--port", address.rpartition(":")[2]]
    with (
        subprocess.Popen([*command, "--model", model, *args], stderr=subprocess.DEVNULL) as process,
        SyncClient(address) as client,
    ):
        try:
            deadline_s = time.monotonic() + 30
            while True:
                try:
                    if client.health() is Health.SERVING:
                        break
                except ServerUnreachableError:
                    pass
                assert time.monotonic() < deadline_s
                time.sleep(0.05)
            yield process, address
        finally:
            process.kill()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "sentence"),
    [(signal.SIGKILL, "was lost"), (signal.SIGTERM, "draining|shutting down|was lost")],
)
def test_a_server_that_stops_during_a_stream_is_reported(
    tiny_model_path: Path, number: signal.Signals, sentence: str
) -> None:
    with (
        _server_process(tiny_model_path, "--drain-grace-s", "0") as (server, address),
        running("spot", "-", "--server", address, "--resume-within", "0") as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(samples()[:RATE_HZ].tobytes())  # one keyword; the pipe stays open
        process.stdin.flush()
        assert b"low" in process.stdout.readline()
        server.send_signal(number)
        assert process.wait(30) == 1
        assert process.stderr is not None
        lines = process.stderr.read().decode().splitlines()
        assert len(lines) == 1
        assert re.search(sentence, lines[0])


@pytest.mark.slow
def test_a_health_watch_reports_that_the_server_stopped(tiny_model_path: Path) -> None:
    with (
        _server_process(tiny_model_path, "--drain-grace-s", "0") as (server, address),
        running("health", "--watch", "--server", address) as process,
    ):
        assert process.stdout is not None
        assert process.stdout.readline().endswith(b": SERVING\n")
        server.terminate()
        assert process.wait(30) == 1
        assert process.stdout.read().endswith(b": NOT_SERVING\n")
        assert process.stderr is not None
        lines = process.stderr.read().decode().splitlines()
        assert len(lines) == 1
        assert lines[0].startswith(f"earmark: the connection to the server at {address} was lost")


@pytest.mark.slow
@pytest.mark.parametrize(
    "args",
    [["spot", "{recording}"], ["classify", "{recording}"], ["models"], ["health"], ["health", "--watch"]],
)
def test_an_unreachable_server_is_reported(recording: Path, args: list[str]) -> None:
    filled = [arg.format(recording=recording) for arg in args]
    done = earmark_process(*filled, "--server", "127.0.0.1:1")
    assert (done.returncode, done.stdout) == (1, "")
    assert "127.0.0.1:1" in done.stderr
    assert "earmark-server" in done.stderr
