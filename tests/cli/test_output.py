"""Output that is closed, full or interrupted."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import termios
from array import array
from pathlib import Path

import pytest
from support.deadlines import DEADLINE_S, wait_until
from support.earmark_command import RATE_HZ, environment, json_lines, running, samples


def test_a_closed_pipe_ends_the_command_silently(address: str) -> None:
    with running("spot", "-", "--json", "--server", address) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(samples()[:RATE_HZ].tobytes())
        process.stdin.flush()
        process.stdout.readline()
        process.stdout.close()  # the command has more to print, since its audio has not ended
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(samples()[RATE_HZ:].tobytes())
            process.stdin.close()
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


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_pipe_that_another_process_has_made_non_blocking_is_waited_for(unbuffered: str) -> None:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(writing, False)
    command = [sys.executable, "-m", "earmark_cli", "completion", "bash"]
    with (
        os.fdopen(reading, "rb") as output,
        subprocess.Popen(command, stdout=writing, env=environment(PYTHONUNBUFFERED=unbuffered)) as process,
    ):
        os.close(writing)
        # The rest of the output does not fit: the command waits for its reader.
        wait_until(lambda: waiting_bytes(reading) == 4096, "a full pipe")
        assert output.read() == subprocess.check_output(command, env=environment())
        assert process.wait(DEADLINE_S) == 0


def waiting_bytes(pipe: int) -> int:
    """Return how many bytes a pipe contains."""
    count = array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, count)
    return count[0]


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


@pytest.mark.parametrize(
    "arguments", ["completion bash", "spot RECORDING", "spot --json absent.wav", "--help"]
)
def test_a_closed_standard_output_is_reported(recording: Path, arguments: str) -> None:
    done = with_closed(">&-", arguments.replace("RECORDING", str(recording)))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "earmark: the results cannot be written: standard output is closed\n"


@pytest.mark.parametrize("closed", ["2>&-", "<&-", "<&- 2>&-"])
def test_other_closed_streams_change_nothing(recording: Path, closed: str) -> None:
    done = with_closed(closed, f"spot --json {recording} absent.wav -")
    assert done.returncode == 1
    lines = json_lines(done.stdout)
    assert [line["type"] for line in lines if line["source"] == str(recording)][-1] == "ended"
    messages = [line["message"] for line in lines if line["type"] == "error"]
    assert messages[0] == "absent.wav: No such file or directory"
    assert messages[1:] == ["standard input cannot be read: Bad file descriptor"] or closed == "2>&-"


def with_closed(closed: str, arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command with some of its standard streams closed."""
    return subprocess.run(
        ["sh", "-c", f"exec {sys.executable} -m earmark_cli {arguments} {closed}"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        env=environment(),
        check=False,
    )
