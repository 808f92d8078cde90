"""Wrong usage, help, interrupts, and readers and servers that go away, of the `earmark` command."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from earmark_client import Health, ServerUnreachableError, SyncClient
from support.earmark_command import (
    RATE_HZ,
    earmark,
    environment,
    json_lines,
    python_process,
    running,
    samples,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["spot"],
        ["classify"],
        ["sing"],
        ["spot", "x.wav", "--keyword", "stop=1.5"],
        ["spot", "x.wav", "--keyword", "stop=loud"],
        ["spot", "x.wav", "--keyword", "=0.5"],
        ["spot", "x.wav", "--keyword", "stop=nan"],
        ["spot", "x.wav", "--threshold", "1"],
        ["listen", "--threshold", "loud"],
        ["plot"],
        ["tune"],
        ["tune", "own", "--fa-per-hour", "0"],
        ["plot", "x.wav", "--from", "-1"],
        ["spot", "-", "--channels", "0"],
        ["spot", "-", "--channels", "9"],
        ["spot", "-", "--rate", "0"],
        ["spot", "-", "--rate", "99999999999"],
        ["spot", "-", "--rate", "16k"],
        ["spot", "-", "--encoding", "mp3"],
        ["spot", "x.wav", "--server", "http://localhost:1"],
        ["listen", "--duration", "0"],
        ["health", "--server", ":1"],
    ],
)
def test_wrong_usage_is_said_with_the_right_one(args: list[str]) -> None:
    done = earmark(*args)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: earmark")
    assert "error: " in done.stderr


def test_a_reader_that_goes_away_ends_the_command_quietly(address: str, recording: Path) -> None:
    with running("spot", *[recording] * 50, "--server", address) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(30) == 1


def test_output_that_cannot_be_written_is_said(address: str, recording: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        command = [sys.executable, "-m", "earmark_cli", "spot", str(recording), "--server", address]
        done = subprocess.run(
            command,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            env=environment(),
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == "earmark: the results cannot be written: No space left on device\n"


@pytest.mark.parametrize("args", ["spot - --json", "spot {} --pace --json"])
def test_an_interrupt_ends_it_with_a_summary_and_130(address: str, recording: Path, args: str) -> None:
    with running(*args.format(recording).split(), "--server", address) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(samples()[:RATE_HZ].tobytes())
        process.stdin.flush()
        assert b"started" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        # Its standard input stays open: it must not wait for more of it.
        assert process.wait(30) == 130
        *_, ended = json_lines(process.stdout.read().decode())
        assert (ended["type"], ended["interrupted"]) == ("ended", True)
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_a_health_watch_is_ended_by_an_interrupt(address: str) -> None:
    with running("health", "--watch", "--server", address) as process:
        assert process.stdout is not None
        assert process.stdout.readline().endswith(b": SERVING\n")
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=30) == (b"", b"")
        assert process.returncode == 130


@pytest.mark.parametrize(
    "command", ["", "spot", "demo", "listen", "classify", "models", "health", "plot", "tune", "completion"]
)
def test_help_fits_a_terminal_and_says_what_for(command: str) -> None:
    done = earmark(*command.split(), "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: earmark")
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert "HOST:PORT" in done.stdout or command in {"", "completion"}
    for name in ["spot", "listen", "classify", "models", "health", "exit codes"]:
        assert name in done.stdout or command


def test_the_version_is_that_of_the_package() -> None:
    assert re.fullmatch(r"earmark \d+\.\d+\.\d+\n", earmark("--version").stdout)


@contextmanager
def _server_process(model: Path, *args: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Run a server that can be killed; gives its address once it serves."""
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


@pytest.mark.parametrize(
    ("number", "sentence"),
    [(signal.SIGKILL, "was lost"), (signal.SIGTERM, "draining|shutting down|was lost")],
)
def test_a_server_that_goes_away_in_the_middle_is_said(
    tiny_model_path: Path, number: signal.Signals, sentence: str
) -> None:
    with (
        _server_process(tiny_model_path, "--drain-grace-s", "0") as (server, address),
        running("spot", "-", "--server", address, "--resume-within", "0") as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(samples()[:RATE_HZ].tobytes())  # one word; the pipe stays open
        process.stdin.flush()
        assert b"low" in process.stdout.readline()
        server.send_signal(number)
        assert process.wait(30) == 1
        assert process.stderr is not None
        lines = process.stderr.read().decode().splitlines()
        assert len(lines) == 1
        assert re.search(sentence, lines[0])


def test_a_health_watch_says_that_the_server_goes_away_and_grpc_says_nothing(tiny_model_path: Path) -> None:
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


def test_every_public_name_is_there_and_none_costs_before_it_is_used() -> None:
    done = python_process(
        "import sys, earmark_client\n"
        "print('grpc' in sys.modules)\n"
        "print(all(getattr(earmark_client, name) is not None for name in earmark_client.__all__))\n"
        "print(set(earmark_client.__all__) <= set(dir(earmark_client)))"
    )
    assert (done.stdout, done.stderr) == ("False\nTrue\nTrue\n", "")


def test_nothing_but_the_base_install_is_imported() -> None:
    done = python_process(
        "import sys, earmark_client, earmark_cli.command_line as command_line\n"
        "command_line.build_parser()\n"
        "heavy = {'torch', 'onnxruntime', 'soxr', 'sounddevice', 'earmark_server', 'earmark_spotter'}\n"
        "heavy |= {'matplotlib', 'rich', 'shtab'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")


@pytest.mark.parametrize("lacking", ["earmark_server", "onnxruntime"])
def test_without_the_server_installed_it_says_what_to_do(recording: Path, lacking: str) -> None:
    args = ["spot", str(recording)]
    done = python_process(
        "import sys\n"
        f"sys.modules[{lacking!r}] = None\n"
        "from earmark_cli.__main__ import main\n"
        f"sys.exit(main({args!r}))"
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert f"but {lacking}" in done.stderr
    assert "pip install 'earmark[server]'" in done.stderr
    assert "--server HOST:PORT" in done.stderr
    assert len(done.stderr.splitlines()) == 1
