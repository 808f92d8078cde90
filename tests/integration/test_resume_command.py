"""`earmark spot` outlives its server: a notice on standard error, and no gap or repeat in its output."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

from faults import TIMEOUT_S, Server
from outside import DEMO
from watched import demo

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def _spot(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("EARMARK_")}
    with subprocess.Popen(
        [sys.executable, "-m", "earmark_client", "spot", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    ) as process:
        overdue = threading.Timer(TIMEOUT_S, process.kill)
        overdue.start()
        try:
            yield process
        finally:
            overdue.cancel()
            process.kill()


def _without_time(output: bytes) -> str:
    return re.sub(r", took .*", "", output.decode())


def test_a_killed_server_leaves_no_trace_in_the_output() -> None:
    audio = b"".join(demo())
    with Server() as server:
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
            # It goes on taking audio meanwhile.
            process.stdin.write(audio[len(audio) // 2 :])
            process.stdin.close()
            server.start()
            output += process.stdout.read()
            resumed = process.stderr.read().decode()
            assert process.wait(TIMEOUT_S) == 0
    assert _without_time(output) == _without_time(expected)
    assert len(output.splitlines()) == 14
    assert re.fullmatch(
        rf"earmark: the server at {server.address} went away: .*; trying to go on for 60 s\n", lost
    )
    assert re.fullmatch(r"earmark: going on where it broke, after \d+\.\d s; nothing is lost\n", resumed)


def test_without_trying_a_killed_server_is_a_failure() -> None:
    with (
        Server() as server,
        _spot(str(DEMO), "--pace", "--server", server.address, "--resume-within", "0") as process,
    ):
        assert process.stdout is not None
        process.stdout.readline()
        server.kill()
        _, errors = process.communicate()
        assert process.returncode == 1
    (line,) = errors.decode().splitlines()
    assert "went away" in line
