"""Send malformed input to a server while a canary stream of real speech runs. See `make fuzz`.

    PYTHONPATH=tests:tests/fuzz:. python tests/fuzz/fuzz.py [--seconds N] [--target NAME,...] [--seed N]

A failing case is shrunk and saved in tests/fuzz/seeds/, from where the tests replay it. Exits with 1 if a
case fails, if the canary stream loses a detection, if its median latency grows by more than a tenth, or if
the server's memory grows.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from fuzzed_server import FuzzedServer
from hypothesis import HealthCheck, Phase, given, seed, settings
from targets import TARGETS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from targets import Target

_BASELINE_S = 20
_SLICE_S = 10
_BATCH = 100
_MAX_GROWTH_MB = 64
_MAX_SLOWDOWN = 1.1


class CanaryResult(TypedDict):
    """The final output of canary.py."""

    received: int
    expected: int
    same: bool


class CanaryProcess:
    """The canary stream's process; see canary.py."""

    def __init__(self, address: str) -> None:
        command = [sys.executable, str(Path(__file__).with_name("canary.py")), address]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout

    def latencies_ms(self) -> list[float]:
        """Return the latencies since the previous call."""
        self._stdin.write("\n")
        self._stdin.flush()
        latencies: list[float] = json.loads(self._stdout.readline())
        return latencies

    def finish(self) -> CanaryResult:
        """End the stream, and return its result."""
        self._stdin.close()
        result: CanaryResult = json.loads(self._stdout.read())
        return result

    def kill(self) -> None:
        """Kill the process, and wait for its end."""
        with self._process:
            self._process.kill()


@contextlib.contextmanager
def canary(address: str) -> Iterator[CanaryProcess]:
    """Run the canary stream while the block runs."""
    process = CanaryProcess(address)
    try:
        yield process
    finally:
        process.kill()


def fuzz(target: Target, server: FuzzedServer, seconds: float, first_seed: int) -> int:
    """Try at least one new case, for `seconds`; return their number. Shrinks, saves and raises a failure."""
    end_s = time.monotonic() + seconds
    count, last = 0, b""

    @settings(
        max_examples=_BATCH,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(target.cases)
    def try_case(case: bytes) -> None:
        nonlocal count, last
        # On a busy machine, drawing the first case can take longer than `seconds`.
        if count and time.monotonic() > end_s and not failed:
            return
        count, last = count + 1, case
        try:
            target.check(server, case)
            server.assert_healthy()
        except BaseException:
            failed.append(case)
            raise

    failed: list[bytes] = []
    number = first_seed
    while time.monotonic() < end_s:
        number += 1
        try:
            seed(number)(try_case)()
        except BaseException:
            target.folder.mkdir(parents=True, exist_ok=True)
            path = target.folder / hashlib.sha256(last).hexdigest()[:12]
            path.write_bytes(last)
            print(f"FAILED: {target.name}, saved as {path}", flush=True)
            raise
    return count


def main() -> int:
    names = [target.name for target in TARGETS]
    parser = argparse.ArgumentParser(description="Fuzz a server while a canary stream of real speech runs.")
    parser.add_argument("--seconds", type=float, default=600, help="duration (default: 600)")
    parser.add_argument(
        "--target", default=",".join(names), help=f"some of {', '.join(names)} (default: all)"
    )
    parser.add_argument(
        "--seed", type=int, default=random.randrange(1 << 30), help="the random seed (default: random)"
    )
    options = parser.parse_args()
    chosen = [target for target in TARGETS if target.name in options.target.split(",")]
    print(f"seed {options.seed}", flush=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        FuzzedServer(Path(folder)) as server,
        canary(server.address) as canary_stream,
    ):
        # The fuzzer must not compete with the server and the canary stream for CPU time.
        os.nice(10)
        time.sleep(2)
        canary_stream.latencies_ms()
        time.sleep(_BASELINE_S)
        baseline = canary_stream.latencies_ms()
        counts = dict.fromkeys(names, 0)
        memory_mb: list[float] = []
        end_s, first_seed = time.monotonic() + options.seconds, options.seed
        latencies: dict[str, list[float]] = {name: [] for name in names}
        while (remaining_s := end_s - time.monotonic()) > 0:
            for target in chosen:
                first_seed += 1_000_000
                seconds = min(_SLICE_S, remaining_s / len(chosen))
                counts[target.name] += fuzz(target, server, seconds, first_seed)
                latencies[target.name] += canary_stream.latencies_ms()
            memory_mb.append(server.memory_mb)
        result = canary_stream.finish()
        descriptors = server.descriptor_count
    print("\ncases: " + ", ".join(f"{counts[target.name]:,} {target.name}" for target in chosen))
    _print_latencies("baseline", baseline)
    for target in chosen:
        _print_latencies(target.name, latencies[target.name])
    grown_mb = memory_mb[-1] - memory_mb[len(memory_mb) // 4]
    print(
        f"server memory: {memory_mb[0]:.0f} MB after the first round, {memory_mb[-1]:.0f} MB at the end, "
        f"{grown_mb:+.0f} MB in the last three quarters; {descriptors} open files and connections"
    )
    print(
        f"canary stream: {result['received']} detections received, {result['expected']} expected, "
        f"identical: {result['same']}"
    )
    limit_ms = _MAX_SLOWDOWN * statistics.median(baseline)
    slowed = [name for name in latencies if latencies[name] and statistics.median(latencies[name]) > limit_ms]
    if slowed:
        print(f"its median latency grew by more than a tenth during: {', '.join(slowed)}")
    return 0 if result["same"] and grown_mb < _MAX_GROWTH_MB and not slowed else 1


def _print_latencies(phase: str, latencies_ms: list[float]) -> None:
    if len(latencies_ms) < 2:
        return
    cuts = statistics.quantiles(latencies_ms, n=100)
    p50, p95, p99 = cuts[49], cuts[94], cuts[98]
    print(f"canary latency, {phase:>10}: p50 {p50:5.1f} ms, p95 {p95:5.1f}, p99 {p99:5.1f}")


if __name__ == "__main__":
    sys.exit(main())
