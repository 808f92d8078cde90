"""Output that is closed, full or interrupted."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.earmark_command import RATE_HZ, environment, json_lines, running, samples


def test_a_closed_pipe_ends_the_command_silently(address: str, recording: Path) -> None:
    with running("spot", *[recording] * 50, "--server", address) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(30) == 1


def test_a_full_disk_is_reported(address: str, recording: Path) -> None:
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
def test_an_interrupt_prints_a_summary_and_exits_with_130(address: str, recording: Path, args: str) -> None:
    with running(*args.format(recording).split(), "--server", address) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(samples()[:RATE_HZ].tobytes())
        process.stdin.flush()
        assert b"started" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        # Standard input stays open; the command must not wait for more audio.
        assert process.wait(30) == 130
        *_, ended = json_lines(process.stdout.read().decode())
        assert (ended["type"], ended["interrupted"]) == ("ended", True)
        assert process.stderr is not None
        assert process.stderr.read() == b""
