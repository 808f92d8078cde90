"""Starts a server process, and measures the CPU time and the memory of a process."""

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

from benchmarks.loadgen.errors import BenchmarkError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_START_TIMEOUT_S = 60
_STOP_TIMEOUT_S = 10


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """A server under load. Without `pid`, its CPU time and memory are unknown."""

    address: str
    pid: int | None


@contextlib.contextmanager
def running_server(
    model_path: Path | None,
    max_streams: int | None,
    *settings: str,
    core: int | None = None,
    prefix: Sequence[str] = (),
) -> Iterator[ServerProcess]:
    """Run `earmark-server` on a free loopback port while the block runs.

    `max_streams`: the limit of all clients together; None: the server's own limits. `settings` are further
    command-line options; the server's environment variables apply too. With `core`, the server runs on that
    core only. `prefix`: a command that replaces itself by the server.

    Raises BenchmarkError if the server does not start.
    """
    command = [*prefix, *([] if core is None else ["taskset", "--cpu-list", str(core)])]
    command += [sys.executable, "-m", "earmark_server", "--host", "127.0.0.1", "--port", "0"]
    if max_streams is not None:
        command += ["--max-streams", str(max_streams), "--max-streams-per-client", "0"]
    command += ["--log-format", "json", "--log-level", "info", *settings]
    if model_path is not None:
        command += ["--model", str(model_path)]
    # In its own session, the server does not receive Ctrl-C. The benchmark stops it.
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stderr is not None
    # The server logs one line per stream. If nobody read them, the pipe would fill up and block the server.
    log_reader = threading.Thread(target=deque, args=(process.stderr, 0), daemon=True)
    try:
        port = _wait_until_serving(process, process.stderr)
        log_reader.start()
        yield ServerProcess(f"127.0.0.1:{port}", process.pid)
    finally:
        process.terminate()
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if log_reader.is_alive():
            log_reader.join()
        process.stderr.close()


def _wait_until_serving(process: subprocess.Popen[str], log: IO[str]) -> int:
    port: int = 0
    last_lines: deque[str] = deque(maxlen=10)
    kill_timer = threading.Timer(_START_TIMEOUT_S, process.kill)
    kill_timer.start()
    try:
        for line in log:
            last_lines.append(line)
            try:
                fields = json.loads(line)
            except ValueError:
                continue  # a traceback, or a library's warning
            if fields.get("event") == "listening":
                port = fields["port"]
            elif fields.get("event") == "serving":
                return port
    finally:
        kill_timer.cancel()
    raise BenchmarkError(f"The server did not start. The end of its log:\n{''.join(last_lines)}")


def cpu_s(pid: int | None) -> float | None:
    """Return the CPU time of a process and its children, in seconds; None if it is unknown."""
    if pid is None or sys.platform != "linux":
        return None
    total_s = 0.0
    for one in _process_tree(pid):
        # The clock of clock_getcpuclockid(3) has a resolution of nanoseconds; /proc has hundredths of a
        # second.
        with contextlib.suppress(OSError):  # the process has exited
            total_s += time.clock_gettime(~one << 3 | 2)
    return total_s or None


def resident_bytes(pid: int | None) -> int | None:
    """Return the resident memory of a process and its children; None if it is unknown."""
    if pid is None or sys.platform != "linux":
        return None
    total = 0
    for one in _process_tree(pid):
        with contextlib.suppress(OSError), open(f"/proc/{one}/status", encoding="ascii") as status:
            total += sum(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS:"))
    return total or None


def machine_cpu_s() -> float | None:
    """Return the CPU time that this machine has used since boot, in seconds; None if it is unknown."""
    with contextlib.suppress(OSError), open("/proc/stat", encoding="ascii") as stat:
        user, nice, system, _idle, _waiting, *interrupts = map(int, stat.readline().split()[1:8])
        return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")
    return None


def _process_tree(pid: int) -> list[int]:
    """Return a process and all its descendants, such as the workers of a server."""
    pids = [pid]
    for parent in pids:
        for path in Path(f"/proc/{parent}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                pids += map(int, path.read_text().split())
    return pids
