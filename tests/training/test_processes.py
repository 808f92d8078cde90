from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from earmark_training.errors import WorkerError
from earmark_training.processes import worker_pool

if TYPE_CHECKING:
    from concurrent.futures import Future
    from pathlib import Path

PROGRAM = """
import os, sys, time
from earmark_training.processes import worker_pool

def work(number):
    os.write(1, b"working\\n")
    time.sleep(600)

if __name__ == "__main__":
    with worker_pool(2, method=sys.argv[1]) as pool:
        list(pool.map(work, range(2)))
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_end_when_their_parent_is_killed(method: str, tmp_path: Path):
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    command = [sys.executable, str(script), method]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        for _ in range(2):
            assert process.stdout.readline() == b"working\n"
        process.kill()
        try:
            # The workers share its standard output, which ends when the last of them ends.
            assert process.communicate(timeout=60)[0] == b""
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.timeout(60)
def test_an_error_while_a_worker_sends_a_long_result_ends_the_pool(method: str):
    def fail() -> None:
        with worker_pool(2, method=method) as pool:
            next(iter(pool.map(bytes, [60_000_000] * 6)))
            raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        fail()


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
@pytest.mark.timeout(60)  # a job takes ten minutes
def test_an_error_ends_the_jobs_and_those_that_wait(error: type[BaseException]):
    futures: list[Future[object]] = []

    def fail() -> None:
        with worker_pool(1, method="spawn") as pool:
            futures.extend(pool.submit(time.sleep, 600) for _ in range(3))
            futures.append(pool.submit(len, bytes(1_000_000)))  # more than the pipe to a worker holds
            raise error

    with pytest.raises(error):
        fail()
    assert not any(future.running() for future in futures)


@pytest.mark.timeout(60)
def test_ctrl_c_ends_a_command_without_a_traceback(tmp_path: Path):
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    command = [sys.executable, str(script), "spawn"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, text=True
    ) as process:
        assert process.stdout is not None
        for _ in range(2):
            assert process.stdout.readline() == "working\n"
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        errors = process.communicate()[1]
    assert errors.count("Traceback") == errors.count("KeyboardInterrupt") == 1  # that of the program itself


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.timeout(60)
def test_a_signal_ends_a_command_with_its_workers_and_temporary_files(
    number: signal.Signals, method: str, tmp_path: Path
):
    script, temporary = tmp_path / "program.py", tmp_path / "tmp"
    temporary.mkdir()
    block = "with ended_by_signals(), TemporaryDirectory(), worker_pool("
    script.write_text(
        "from tempfile import TemporaryDirectory\nfrom earmark_training.processes import ended_by_signals\n"
        + PROGRAM.replace("with worker_pool(", block)
    )
    command = [sys.executable, str(script), method]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env=os.environ | {"TMPDIR": str(temporary)},
    ) as process:
        assert process.stdout is not None
        for _ in range(2):
            assert process.stdout.readline() == b"working\n"
        assert list(temporary.iterdir())
        if number == signal.SIGHUP:
            os.killpg(process.pid, number)  # as a terminal that is closed does
        else:
            process.send_signal(number)
        # The workers share its standard output, which ends when the last of them ends.
        output, errors = process.communicate()
    assert process.returncode == 128 + number
    assert output == b""
    # Python's tracker of resources ends with a terminal, too, and is started again with a warning.
    assert number == signal.SIGHUP or errors == b""
    assert not list(temporary.iterdir())


@pytest.mark.timeout(60)
def test_a_worker_that_is_killed_is_an_error_that_says_what_to_do():
    with (
        pytest.raises(WorkerError, match="a worker process was ended, probably because the memory"),
        worker_pool(2, method="spawn") as pool,
    ):
        list(pool.map(signal.raise_signal, [signal.SIGKILL, signal.SIGKILL]))
