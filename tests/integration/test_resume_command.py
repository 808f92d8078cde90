"""`earmark spot` survives its server: a notice on standard error, and no gap or repetition in its output."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from glob import glob
from typing import TYPE_CHECKING

import pytest
from support import tiny_model
from support.deadlines import DEADLINE_S
from support.environment import clean_environment
from support.observed_streams import demo
from support.paths import DEMO
from support.restartable_server import RestartableServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextlib.contextmanager
def _spot(*arguments: str, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [sys.executable, "-m", "earmark_cli", "spot", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=clean_environment(**variables),
    ) as process:
        overdue = threading.Timer(DEADLINE_S, process.kill)
        overdue.start()
        try:
            yield process
        finally:
            overdue.cancel()
            process.kill()


def _without_time(output: bytes) -> str:
    return re.sub(r", took .*", "", output.decode())


def test_a_killed_server_does_not_change_the_output() -> None:
    audio = b"".join(demo())
    with RestartableServer() as server:
        with _spot("-", "--server", server.address) as process:
            expected, quiet = process.communicate(audio)
            assert (process.returncode, quiet) == (0, b"")
        with _spot("-", "--server", server.address) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdin.write(audio[: len(audio) // 2])
            process.stdin.flush()
            output = b"".join(process.stdout.readline() for _ in range(4))
            server.kill()
            lost = process.stderr.readline().decode()
            # It continues to read audio meanwhile.
            process.stdin.write(audio[len(audio) // 2 :])
            process.stdin.close()
            server.start()
            output += process.stdout.read()
            resumed = process.stderr.read().decode()
            assert process.wait(DEADLINE_S) == 0
    assert _without_time(output) == _without_time(expected)
    assert len(output.splitlines()) == 14
    assert re.fullmatch(
        rf"earmark: the connection to the server at {server.address} was lost: .*; "
        r"trying to resume for 60 s\n",
        lost,
    )
    assert re.fullmatch(r"earmark: the stream resumed after \d+\.\d s; nothing was lost\n", resumed)


def test_a_system_clock_that_jumps_changes_nothing(tmp_path: Path) -> None:
    """libfaketime changes the clock of the server's process and of the client's."""
    libraries = glob("/usr/lib/*/faketime/libfaketimeMT.so.1")
    if not libraries:
        pytest.skip("no libfaketime: on Debian, install faketime")
    clock = tmp_path / "clock"
    clock.write_text("+0d")
    # As when a clock is set: the time of day jumps, and the monotonic clock does not.
    faked = {
        "LD_PRELOAD": libraries[0],
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    audio = b"".join(demo())
    thirds = [audio[len(audio) * i // 3 : len(audio) * (i + 1) // 3] for i in range(3)]
    server = RestartableServer()
    server.environment = faked
    with server, _spot("-", "--server", server.address, **faked) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        lines = []
        for third, known, days in zip(thirds, (3, 4, 0), (-2, 2, 2), strict=True):
            process.stdin.write(third)
            process.stdin.flush()
            lines += [process.stdout.readline() for _ in range(known)]
            clock.write_text(f"{days:+}d")
        process.stdin.close()
        lines += process.stdout.readlines()
        assert process.wait(DEADLINE_S) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b""
        logged = [datetime.fromisoformat(server.wait_for("detection")["time"]) for _ in range(13)]
        with _spot("-", "--server", server.address) as undisturbed:
            expected, _ = undisturbed.communicate(audio)
    assert _without_time(b"".join(lines)) == _without_time(expected)
    jumps = {round((time - datetime.now(UTC)) / timedelta(days=1)) for time in logged}
    assert jumps == {0, -2, 2}


@pytest.mark.slow
def test_without_resuming_a_killed_server_is_a_failure() -> None:
    with (
        RestartableServer() as server,
        _spot(str(DEMO), "--pace", "--server", server.address, "--resume-within", "0") as process,
    ):
        assert process.stdout is not None
        process.stdout.readline()
        server.kill()
        _, errors = process.communicate()
        assert process.returncode == 1
    (line,) = errors.decode().splitlines()
    assert "was lost" in line


@pytest.mark.slow
def test_a_server_that_got_another_model_is_a_failure(tmp_path: Path) -> None:
    for version in ("1.0.0", "1.0.1"):
        (tmp_path / version).mkdir()  # the replaced model is kept beside its file
        document = tiny_model.metadata() | {"version": version}
        tiny_model.build(tmp_path / version / "tiny.onnx", document=document)
    samples = tiny_model.recording([(0.5, "low"), (2.5, "high")], 3.5) * 32767
    server = RestartableServer(tmp_path / "1.0.0/tiny.onnx")
    with server, _spot("-", "--server", server.address) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(samples.astype("<i2").tobytes())  # the pipe stays open
        process.stdin.flush()
        assert b"low" in process.stdout.readline()
        assert b"high" in process.stdout.readline()
        server.kill()
        server.model_path = tmp_path / "1.0.1/tiny.onnx"
        server.start()
        assert process.wait(DEADLINE_S) == 1
        assert process.stderr is not None
        *_, last = process.stderr.read().decode().splitlines()
    assert "another key or model file" in last
    assert last.endswith("or start a new stream.")
