"""Throw broken input at a server, beside a stream of real speech that must not notice. See `make fuzz`.

    PYTHONPATH=tests:tests/fuzz:. python tests/fuzz/fuzz.py [--seconds N] [--target NAME,...] [--seed N]

A case that finds something is made as small as it gets and kept in tests/fuzz/seeds/: from then on the tests
have it. Exits with 1 then, and where the stream beside lost a keyword or its median delay grew by a tenth, or
memory has grown.
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
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, Phase, given, seed, settings
from service import Service
from targets import TARGETS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from targets import Target

_QUIET_S = 20
_SLICE_S = 10
_BATCH = 100
_MAX_GROWTH_MB = 64
_MAX_SLOWDOWN = 1.1


class Beside:
    """The stream beside, in a process of its own."""

    def __init__(self, address: str) -> None:
        command = [sys.executable, str(Path(__file__).with_name("neighbour.py")), address]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._ask, self._said = self._process.stdin, self._process.stdout

    def delays_ms(self) -> list[float]:
        """Give the delays since this was asked before."""
        self._ask.write("\n")
        self._ask.flush()
        delays: list[float] = json.loads(self._said.readline())
        return delays

    def leave(self) -> dict[str, int | bool]:
        """End it; gives what it heard."""
        self._ask.close()
        heard: dict[str, int | bool] = json.loads(self._said.read())
        return heard

    def end(self) -> None:
        """End it, whatever it does."""
        with self._process:
            self._process.kill()


@contextlib.contextmanager
def beside(address: str) -> Iterator[Beside]:
    """Run the stream beside while the block runs."""
    stream = Beside(address)
    try:
        yield stream
    finally:
        stream.end()


def fuzz(target: Target, service: Service, seconds: float, number: int) -> int:
    """Try new cases for that long; returns how many. A case that fails is made small, kept, and raised."""
    until_s = time.monotonic() + seconds
    count, last = 0, b""

    @settings(
        max_examples=_BATCH,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(target.cases)
    def try_one(case: bytes) -> None:
        nonlocal count, last
        if time.monotonic() > until_s and not failed:
            return
        count, last = count + 1, case
        try:
            target.check(service, case)
            service.assert_well()
        except BaseException:
            failed.append(case)
            raise

    failed: list[bytes] = []
    while time.monotonic() < until_s:
        number += 1
        try:
            seed(number)(try_one)()
        except BaseException:
            target.folder.mkdir(parents=True, exist_ok=True)
            kept = target.folder / hashlib.sha256(last).hexdigest()[:12]
            kept.write_bytes(last)
            print(f"FOUND by {target.name}, kept as {kept}", flush=True)
            raise
    return count


def main() -> int:
    names = [target.name for target in TARGETS]
    parser = argparse.ArgumentParser(description="Fuzz a server that runs beside a stream of real speech.")
    parser.add_argument("--seconds", type=float, default=600, help="how long (default: 600)")
    parser.add_argument(
        "--target", default=",".join(names), help=f"some of {', '.join(names)} (default: all)"
    )
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30), help="where chance begins")
    given = parser.parse_args()
    chosen = [target for target in TARGETS if target.name in given.target.split(",")]
    print(f"seed {given.seed}", flush=True)
    # What is measured is the server, not who gets the processor: this waits for everybody else.
    with (
        tempfile.TemporaryDirectory() as folder,
        Service(Path(folder)) as service,
        beside(service.address) as stream,
    ):
        os.nice(10)
        time.sleep(2)
        stream.delays_ms()
        time.sleep(_QUIET_S)
        quiet = stream.delays_ms()
        counts = dict.fromkeys(names, 0)
        memory_mb: list[float] = []
        until_s, number = time.monotonic() + given.seconds, given.seed
        delays: dict[str, list[float]] = {name: [] for name in names}
        while (left_s := until_s - time.monotonic()) > 0:
            for target in chosen:
                number += 1_000_000
                counts[target.name] += fuzz(target, service, min(_SLICE_S, left_s / len(chosen)), number)
                delays[target.name] += stream.delays_ms()
            memory_mb.append(service.memory_mb)
        heard = stream.leave()
        descriptors = service.descriptor_count
    print("\ncases: " + ", ".join(f"{counts[target.name]:,} {target.name}" for target in chosen))
    _print_delays("quiet", quiet)
    for target in chosen:
        _print_delays(target.name, delays[target.name])
    grown_mb = memory_mb[-1] - memory_mb[len(memory_mb) // 4]
    print(
        f"memory of the server: {memory_mb[0]:.0f} MB after a round, {memory_mb[-1]:.0f} MB at the end, ",
        end="",
    )
    print(f"{grown_mb:+.0f} MB in the last three quarters; {descriptors} files and connections open")
    print(f"the stream beside heard {heard['heard']} keywords of {heard['expected']}, same: {heard['same']}")
    limit_ms = _MAX_SLOWDOWN * statistics.median(quiet)
    slowed = [name for name in delays if delays[name] and statistics.median(delays[name]) > limit_ms]
    if slowed:
        print(f"its median delay grew by more than a tenth beside: {', '.join(slowed)}")
    return 0 if heard["same"] and grown_mb < _MAX_GROWTH_MB and not slowed else 1


def _print_delays(what: str, delays_ms: list[float]) -> None:
    if len(delays_ms) < 2:
        return
    cuts = statistics.quantiles(delays_ms, n=100)
    p50, p95, p99 = cuts[49], cuts[94], cuts[98]
    print(f"delay of the stream beside, {what:>10}: p50 {p50:5.1f} ms, p95 {p95:5.1f}, p99 {p99:5.1f}")


if __name__ == "__main__":
    sys.exit(main())
