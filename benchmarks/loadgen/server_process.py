"""Server processes: starting one, and what a process has used of CPU and memory."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from benchmarks.loadgen.speech import BenchmarkError

if TYPE_CHECKING:
    from collections.abc import Iterator

_START_TIMEOUT_S = 60
_STOP_TIMEOUT_S = 10


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """A server to be loaded; without `pid` its CPU and memory are not known."""

    address: str
    pid: int | None


@contextlib.contextmanager
def serving(
    model_path: Path | None, max_streams: int, *settings: str, core: int | None = None
) -> Iterator[ServerProcess]:
    """Run `earmark-server` on a free port of loopback while the block runs.

    With `core`, it runs on that core only. `settings` are more options of its command line; others can be
    made by its environment variables. Raises BenchmarkError if it doesn't start.
    """
    command = [] if core is None else ["taskset", "--cpu-list", str(core)]
    command += [sys.executable, "-m", "earmark_server", "--host", "127.0.0.1", "--port", "0"]
    command += ["--max-streams", str(max_streams), "--log-format", "json", "--log-level", "info", *settings]
    if model_path is not None:
        command += ["--model", str(model_path)]
    # A session of its own: an interrupt from the terminal is for the benchmark, which then ends it.
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stderr is not None
    # It logs a line per stream, and must not have to wait for somebody to read them.
    reading = threading.Thread(target=deque, args=(process.stderr, 0), daemon=True)
    try:
        port = _wait_until_serving(process, process.stderr)
        reading.start()
        yield ServerProcess(f"127.0.0.1:{port}", process.pid)
    finally:
        process.terminate()
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if reading.is_alive():
            reading.join()
        process.stderr.close()


def _wait_until_serving(process: subprocess.Popen[str], log: IO[str]) -> int:
    port: int = 0
    last_lines: deque[str] = deque(maxlen=10)
    overdue = threading.Timer(_START_TIMEOUT_S, process.kill)
    overdue.start()
    try:
        for line in log:
            last_lines.append(line)
            try:
                fields = json.loads(line)
            except ValueError:
                continue  # a traceback, or a warning of some library's
            if fields.get("event") == "listening":
                port = fields["port"]
            elif fields.get("event") == "serving":
                return port
    finally:
        overdue.cancel()
    raise BenchmarkError(f"The server did not start. Its last words:\n{''.join(last_lines)}")


def cpu_s(pid: int | None) -> float | None:
    """CPU time of a process and its children so far, in seconds; None where it cannot be known."""
    if pid is None or sys.platform != "linux":
        return None
    total_s = 0.0
    for one in _family(pid):
        # The clock of clock_getcpuclockid(3): nanoseconds, where /proc has hundredths of a second.
        with contextlib.suppress(OSError):  # there is no such process
            total_s += time.clock_gettime(~one << 3 | 2)
    return total_s or None


def resident_bytes(pid: int | None) -> int | None:
    """Memory of a process and its children that is in RAM now; None where it cannot be known."""
    if pid is None or sys.platform != "linux":
        return None
    total = 0
    for one in _family(pid):
        with contextlib.suppress(OSError), open(f"/proc/{one}/status", encoding="ascii") as status:
            total += sum(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS:"))
    return total or None


def machine_cpu_s() -> float | None:
    """CPU time of everything on this machine so far, in seconds; None where it cannot be known."""
    with contextlib.suppress(OSError), open("/proc/stat", encoding="ascii") as stat:
        user, nice, system, _idle, _waiting, *interrupts = map(int, stat.readline().split()[1:8])
        return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")
    return None


def _family(pid: int) -> list[int]:
    """Find a process and what it has started: the workers of a server that has some."""
    family = [pid]
    for parent in family:
        for path in Path(f"/proc/{parent}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                family += map(int, path.read_text().split())
    return family
