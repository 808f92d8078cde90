"""`--exec`: a command for each detection."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from earmark_cli.actions.command_runner import CommandRunner
from support.deadlines import DEADLINE_S
from support.earmark_command import WORDS, earmark, environment, json_lines, running

KEYWORDS = [word for _, word in WORDS]


def script(folder: Path, text: str) -> Path:
    path = folder / "action"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def wait_for(path: Path) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while not path.exists():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    """Return whether a process runs; one that has ended may remain as a zombie where nothing reaps it."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_the_command_runs_for_each_detection_with_the_detection_in_its_environment(
    address: str, recording: Path, tmp_path: Path
) -> None:
    action = script(tmp_path, f'env | grep ^EARMARK_ | sort > "{tmp_path}/$EARMARK_ID"')
    done = earmark("spot", recording, "--server", address, "--json", "--exec", action, EARMARK_SERVER="")
    assert done.returncode == 0
    _, *detections, _ = json_lines(done.stdout)
    assert [line["keyword"] for line in detections] == KEYWORDS
    for line in detections:
        variables = dict(one.split("=", 1) for one in (tmp_path / line["id"]).read_text().splitlines())
        assert variables["EARMARK_KEYWORD"] == line["keyword"]
        assert variables["EARMARK_ID"] == line["id"]
        assert variables["EARMARK_SOURCE"] == str(recording)
        assert float(variables["EARMARK_CONFIDENCE"]) == line["confidence"]
        assert float(variables["EARMARK_START"]) == line["start_s"]
        assert float(variables["EARMARK_END"]) == line["end_s"]


def test_jobs_run_the_command_too(address: str, recording: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.wav"
    shutil.copy(recording, other)
    action = script(tmp_path, f'echo "$EARMARK_SOURCE $EARMARK_KEYWORD" >> {tmp_path}/log')
    done = earmark("spot", recording, other, "--server", address, "--jobs", "2", "--exec", action)
    assert (done.returncode, done.stderr) == (0, "")
    expected = [f"{source} {keyword}" for source in (recording, other) for keyword in KEYWORDS]
    assert sorted((tmp_path / "log").read_text().splitlines()) == sorted(expected)


def test_no_shell_reads_the_command(address: str, recording: Path, tmp_path: Path) -> None:
    done = earmark(
        "spot", recording, "--server", address, "--exec", f"echo 'a  b' $EARMARK_KEYWORD ; touch {tmp_path}/x"
    )
    assert done.returncode == 0
    assert done.stderr.count(f"earmark: --exec: echo: a  b $EARMARK_KEYWORD ; touch {tmp_path}/x\n") == 3
    assert not (tmp_path / "x").exists()


def test_text_of_a_server_reaches_the_environment_escaped() -> None:
    runner = CommandRunner(["sh", "-c", 'printf %s "$WORD"'], concurrency=1, timeout_s=DEADLINE_S)
    runner.run({"WORD": "$(touch x); `id`"})
    runner.wait()
    assert runner.messages() == ["sh: $(touch x); `id`"]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("no-such-command", "no-such-command: No such file or directory"),
        ("/", "/: Permission denied"),
        ("false", "false: failed with exit code 1"),
        ("sh -c 'kill -9 $$'", "sh: failed with signal 9"),
        ("sh -c 'echo why >&2; exit 3'", "sh: why"),
    ],
)
def test_a_command_that_fails_is_reported_and_changes_nothing_else(
    address: str, recording: Path, command: str, message: str
) -> None:
    plain = earmark("spot", recording, "--server", address)
    done = earmark("spot", recording, "--server", address, "--exec", command)
    assert done.returncode == 0
    assert done.stdout.splitlines()[:-1] == plain.stdout.splitlines()[:-1]
    assert done.stderr.count(f"earmark: --exec: {message}\n") == 3


def test_a_missing_command_is_reported_before_the_first_detection(address: str, tmp_path: Path) -> None:
    with running("spot", "-", "--server", address, "--exec", "no-such-command") as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(bytes(64_000))
        process.stdin.close()
        assert b"no-such-command: there is no such command" in process.stderr.readline()


def test_a_slow_command_does_not_delay_the_stream(address: str, recording: Path, tmp_path: Path) -> None:
    """The commands wait for a file that appears only after the last line of output."""
    action = script(
        tmp_path, f"while [ ! -e {tmp_path}/go ]; do sleep 0.05; done; touch {tmp_path}/$EARMARK_ID"
    )
    with running("spot", recording, "--server", address, "--exec", action, "--exec-at-once", "2") as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(4)]
        assert b"3 detections" in lines[-1]
        assert process.poll() is None
        (tmp_path / "go").touch()
        assert process.wait(DEADLINE_S) == 0
        assert len([*tmp_path.glob("*-*")]) == 3


def test_at_most_the_given_number_of_commands_run_at_once(tmp_path: Path) -> None:
    running_now, peak = tmp_path / "running", tmp_path / "peak"
    running_now.mkdir()
    # Each one notes how many run beside it.
    code = f"touch {running_now}/$N; ls {running_now} | wc -l >> {peak}; sleep 0.05; rm {running_now}/$N"
    runner = CommandRunner(["sh", "-c", code], concurrency=3, timeout_s=DEADLINE_S)
    for i in range(12):
        runner.run({"N": str(i)})
    runner.wait()
    counts = [int(line) for line in peak.read_text().split()]
    assert len(counts) == 12
    assert max(counts) <= 3
    assert runner.messages() == []


def test_a_command_that_never_ends_is_killed_with_its_children(tmp_path: Path) -> None:
    runner = CommandRunner(
        ["sh", "-c", f"sleep 600 & echo $! > {tmp_path}/child; echo started; wait"],
        concurrency=1,
        timeout_s=0.5,
    )
    runner.run({})
    runner.run({})
    runner.wait()
    assert runner.messages() == ["sh: started", "sh: killed after 0.5 s"] * 2
    child = int((tmp_path / "child").read_text())
    deadline_s = time.monotonic() + DEADLINE_S
    while is_running(child):
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def test_endless_output_is_read_and_only_its_end_is_kept() -> None:
    runner = CommandRunner(["sh", "-c", "yes | head -c 10000000; echo last"], concurrency=1, timeout_s=60)
    runner.run({})
    runner.wait()
    messages = runner.messages()
    assert messages[-1] == "sh: last"
    assert len(messages) < 4096


def test_a_background_process_that_keeps_the_output_open_does_not_occupy_a_place(tmp_path: Path) -> None:
    begin_s = time.monotonic()
    runner = CommandRunner(["sh", "-c", "sleep 60 &"], concurrency=1, timeout_s=60)
    runner.run({})
    runner.wait()
    assert time.monotonic() - begin_s < 30


def test_a_flood_of_detections_is_bounded() -> None:
    runner = CommandRunner(["sleep", "60"], concurrency=1, timeout_s=60)
    for _ in range(1011):
        runner.run({})
    assert runner.unfinished == 1001
    assert runner.messages() == ["sleep: not run for 10 detections, because 1000 others wait for it"]
    runner.kill()
    runner.wait()


def test_a_command_that_is_starting_is_killed_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started, go_on = threading.Event(), threading.Event()
    processes = []

    def start(*args: Any, **options: Any) -> subprocess.Popen[bytes]:
        processes.append(subprocess.Popen(*args, **options))
        started.set()
        assert go_on.wait(DEADLINE_S)
        return processes[0]

    monkeypatch.setattr(
        "earmark_cli.actions.command_runner.subprocess",
        SimpleNamespace(**{**vars(subprocess), "Popen": start}),
    )
    runner = CommandRunner(["sleep", "600"], concurrency=1, timeout_s=DEADLINE_S)
    runner.run({})
    assert started.wait(DEADLINE_S)
    killing = threading.Thread(target=runner.kill)
    killing.start()
    killing.join(0.2)
    assert killing.is_alive()  # The program would end now, and the command would go on.
    go_on.set()
    killing.join(DEADLINE_S)
    assert processes[0].wait(DEADLINE_S) == -signal.SIGKILL
    runner.run({})
    assert runner.wait(DEADLINE_S)
    assert len(processes) == 1


@pytest.mark.parametrize("jobs", ["1", "2"])
@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name
)
def test_a_signal_that_ends_the_command_kills_the_commands(
    address: str, recording: Path, tmp_path: Path, jobs: str, number: signal.Signals
) -> None:
    action = script(
        tmp_path, f"echo $$ > {tmp_path}/$$.part; mv {tmp_path}/$$.part {tmp_path}/$$.pid; exec sleep 600"
    )
    options = ["--server", address, "--exec", action, "--jobs", jobs]
    with running("spot", recording, recording, *options) as process:
        deadline_s = time.monotonic() + DEADLINE_S
        while not list(tmp_path.glob("*.pid")):
            assert time.monotonic() < deadline_s
            time.sleep(0.02)
        process.send_signal(number)
        assert process.wait(DEADLINE_S) == (130 if number == signal.SIGINT else -number)
        assert process.stderr is not None
        assert {line.rpartition(b": ")[2] for line in process.stderr} <= {b"failed with signal 9\n"}
    deadline_s = time.monotonic() + DEADLINE_S
    while any(is_running(int(file.stem)) for file in tmp_path.glob("*.pid")):
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


@pytest.mark.parametrize("command", ["", "  ", "say 'hello"])
def test_a_command_that_cannot_be_split_is_wrong_usage(command: str, recording: Path) -> None:
    done = earmark("spot", recording, "--exec", command)
    assert done.returncode == 2
    assert re.search(r"argument --exec: ", done.stderr)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
def test_a_signal_before_the_thread_of_a_command_has_started_takes_effect_afterwards() -> None:
    code = """
import os, signal, threading
from earmark_cli.actions.command_runner import CommandRunner
from earmark_cli.interrupts import before_termination

runner = CommandRunner(["sleep", "60"], concurrency=1, timeout_s=60)
start = threading.Thread.start

def interrupted(thread):
    os.kill(os.getpid(), signal.SIGTERM)
    for _ in range(1000):
        pass  # here the handler runs
    start(thread)

threading.Thread.start = interrupted

def end():
    runner.kill()
    runner.wait()

with before_termination(end):
    runner.run({})
"""
    done = subprocess.run([sys.executable, "-c", code], env=environment(), check=False, timeout=DEADLINE_S)
    assert done.returncode == -signal.SIGTERM


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
def test_a_process_of_jobs_ends_its_commands_even_if_the_pool_sends_a_second_signal(tmp_path: Path) -> None:
    # When one process of the pool ends, the pool sends SIGTERM to the others, which have got one already.
    file = tmp_path / "second_signal.py"
    file.write_text("""
import multiprocessing, os, signal, sys
from pathlib import Path
from earmark_cli.interrupts import before_termination

def end():
    os.kill(os.getpid(), signal.SIGTERM)
    for _ in range(1000):
        pass  # here a second signal would end the process
    Path(sys.argv[1]).touch()

def work():
    with before_termination(end):
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()

if __name__ == "__main__":
    process = multiprocessing.get_context("spawn").Process(target=work)
    process.start()
    process.join()
    sys.exit(-process.exitcode)
""")
    ended = tmp_path / "ended"
    command = [sys.executable, file, ended]
    done = subprocess.run(command, env=environment(), check=False, timeout=DEADLINE_S)
    assert ended.exists()
    assert done.returncode == signal.SIGTERM
