"""Server processes: starting one, and what a process has used of CPU and memory."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from benchmarks.speech import BenchmarkError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_START_TIMEOUT_S = 60
_STOP_TIMEOUT_S = 10


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """A server to be loaded; without `pid` its CPU and memory are not known."""

    address: str
    pid: int | None


@contextlib.contextmanager
def serving(model_path: Path | None, max_streams: int) -> Iterator[ServerProcess]:
    """Run `earmark-server` on a free port of loopback while the block runs.

    Settings that are not stated here can be made by the server's environment variables.
    Raises BenchmarkError if it doesn't start.
    """
    command = [sys.executable, "-m", "earmark_server", "--host", "127.0.0.1", "--port", "0"]
    command += ["--max-streams", str(max_streams), "--log-format", "json", "--log-level", "info"]
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
    """CPU time of a process since its start, in seconds, of all threads; None where it cannot be known."""
    if pid is None or sys.platform != "linux":
        return None
    # The clock of clock_getcpuclockid(3): nanoseconds, where /proc has hundredths of a second.
    with contextlib.suppress(OSError):  # there is no such process
        return time.clock_gettime(~pid << 3 | 2)
    return None


def resident_bytes(pid: int | None) -> int | None:
    """Memory of a process that is in RAM now; None where it cannot be known."""
    if pid is None or sys.platform != "linux":
        return None
    with contextlib.suppress(OSError), open(f"/proc/{pid}/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    return None
