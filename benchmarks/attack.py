"""Attack a server in many ways, and measure the real-time streams during each attack.

    python -m benchmarks.attack [--streams 20] [--seconds 10] [--only NAME,...]

Each attack meets a new server with default settings. Where this command may limit the memory of a process
(as root, with the memory controller of cgroups), the server has 1 GiB. Where permitted, the clients of the
streams have priority over the server; the server has priority over the attacker. The columns: the latency of
the detections in the streams during the attack, the detections that were lost, the peak memory of the server,
and whether it was alive and accepted a stream afterwards. Exits with 1 if a detection was lost or a server
ended.
The attacks run against servers that this command starts, and no other.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from earmark_client import ConnectionLostError, EarmarkError, ServerBusyError
from earmark_spotter import SpotterModel

from benchmarks.loadgen import arguments, attacks
from benchmarks.loadgen.errors import BenchmarkError
from benchmarks.loadgen.server_process import running_server
from benchmarks.loadgen.speech import Speech
from benchmarks.loadgen.table import number, percentile_ms, print_header, print_row
from benchmarks.loadgen.workload import Workload

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

MEMORY_BYTES = 1 << 30
_CGROUPS = (
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
    (Path("/sys/fs/cgroup"), "memory.max"),
)
_BEFORE_S = 2.0
"""The attack begins this long after the first stream."""

_BUSY_TIME_S = 5.0
"""How long a server may refuse streams after an attack."""

_NICENESS = 10  # of the attacker
_CLIENTS_NICENESS = -5
COLUMNS = (
    "attack",
    "latency p50, ms",
    "latency p99, ms",
    "latency max, ms",
    "lost",
    "peak memory, MB",
    "memory limit",
    "alive",
)


@contextlib.contextmanager
def limited_memory() -> Iterator[tuple[str, ...]]:
    """Yield a prefix of commands that limits the memory of their process; empty if that is not possible."""
    for root, file in _CGROUPS:
        group = root / f"earmark-attack-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            (group / file).write_text(str(MEMORY_BYTES))
            yield ("sh", "-c", 'echo $$ > "$0" && exec "$@"', str(group / "cgroup.procs"))
            return
        except OSError:
            continue
        finally:
            group.rmdir()  # the process has ended
    yield ()


@contextlib.contextmanager
def _priority() -> Iterator[None]:
    """Give the processes that are started in the block priority, where that is permitted."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, before + _CLIENTS_NICENESS)
    try:
        yield
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, before)


def peak_bytes(pid: int) -> int | None:
    """Return the peak of a process's resident memory; None if it has ended."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return None


@contextlib.contextmanager
def attacked(name: str, address: str, health_address: str, seconds: float) -> Iterator[None]:
    """Attack a server from another process during the block."""
    context = multiprocessing.get_context("spawn")
    process = context.Process(
        target=_attack, args=(name, address, health_address, seconds), daemon=True, name=f"attack-{name}"
    )
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


def _attack(name: str, address: str, health_address: str, seconds: float) -> None:
    # The streams during the attack must not wait for the attacker's own computation.
    os.nice(_NICENESS)
    time.sleep(_BEFORE_S)
    attacks.run(name, address, health_address, seconds)


def main(argv: Sequence[str] | None = None) -> int:
    parser = arguments.make_parser(
        "attack", "Attack servers in many ways, and measure the real-time streams during each attack."
    )
    parser.add_argument("--streams", type=arguments.count, default=20, help="real-time streams (default: 20)")
    parser.add_argument(
        "--seconds", type=arguments.seconds, default=10.0, help="length of each attack (default: 10)"
    )
    parser.add_argument(
        "--only",
        type=_names,
        default=list(attacks.ATTACKS),
        metavar="NAME,...",
        help=f"the attacks to run (default: all of {', '.join(attacks.ATTACKS)})",
    )
    options = parser.parse_args(argv)
    return arguments.run("attack", lambda: _measure(options))


def _names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in attacks.ATTACKS]:
        raise ValueError(f"no attack is named {unknown[0]!r}")
    return names


def _free_port() -> int:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port: int = reserved.getsockname()[1]
        return port


def _measure(options: argparse.Namespace) -> list[str]:
    if sys.platform != "linux":
        raise BenchmarkError("The attacks need Linux: they come from a second loopback address.")
    speech = Speech.read(options.recording, 100)
    model = SpotterModel.load(options.model)
    workload = Workload(speech, model, max(1, round(options.seconds / speech.chunk_s)))
    print_header(f"{options.streams} real-time streams of {workload.seconds:g} s during each attack", COLUMNS)
    problems: list[str] = []
    for name in options.only:
        problems += _measure_attack(name, options, workload)
    return problems


def _measure_attack(name: str, options: argparse.Namespace, workload: Workload) -> list[str]:
    """Run one attack, print its row, and return the problems."""
    health_port = _free_port()
    with (
        limited_memory() as prefix,
        running_server(options.model, None, f"--health-port={health_port}", prefix=prefix) as server,
    ):
        pid = server.pid
        assert pid is not None
        workload.warm_up(server.address)
        problems: list[str] = []
        latencies_s: Sequence[float] = ()
        lost = None
        try:
            with (
                attacked(name, server.address, f"127.0.0.1:{health_port}", options.seconds + 5),
                _priority(),
            ):
                measurement = workload.run(options.streams, server)
        except BenchmarkError as error:
            problems.append(str(error))
        else:
            outcome = measurement.outcome
            problems += measurement.problems
            latencies_s, lost = outcome.latencies_s, outcome.expected - outcome.received
        peak = peak_bytes(pid)
        alive = peak is not None
        try:
            _run_stream_afterwards(workload, server.address)
        except (BenchmarkError, EarmarkError) as error:
            problems.append(f"no stream afterwards: {error}")
            alive = False
    print_row(
        (
            attacks.ATTACKS[name][0],
            *(number(percentile_ms(latencies_s, percent)) for percent in (50, 99, 100)),
            number(lost, 0),
            number(None if peak is None else peak / (1 << 20), 0),
            "1 GiB" if prefix else "none",
            "yes" if alive else "**no**",
        )
    )
    return [f"{name}: {problem}" for problem in problems]


def _run_stream_afterwards(workload: Workload, address: str) -> None:
    """Run a stream. For a moment, the server may still be busy, or gRPC's queue of calls full."""
    end_s = time.monotonic() + _BUSY_TIME_S
    while True:
        try:
            workload.warm_up(address)
        except (ConnectionLostError, ServerBusyError):
            if time.monotonic() > end_s:
                raise
            time.sleep(0.1)
        else:
            return


if __name__ == "__main__":
    sys.exit(main())
