"""Compute the machines and the money for many streams from the cost of one stream.

    python -m benchmarks.capacity_plan [--streams 10000,1000000,100000000] [--cost-ms 3.1]
                                       [--streams-per-core 160] [--core-hour 0.04] ...

Every figure follows from the options. docs/capacity.md has the table for the defaults, and states which of
them were measured and which are assumptions.
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.loadgen import arguments
from benchmarks.loadgen.table import print_row

if TYPE_CHECKING:
    from collections.abc import Sequence

# The overhead of an audio message (HTTP/2, gRPC, protobuf, a TLS record), and of each packet (its headers).
_MESSAGE_BYTES, _PACKET_BYTES, _PACKET_PAYLOAD_BYTES = 9 + 5 + 4 + 22, 54, 1448

_FORMATS = {"16 kHz, 16 bit": 256_000, "8 kHz, mu-law": 64_000}  # bit/s


@dataclass(frozen=True, slots=True)
class Plan:
    """The resources for a number of streams. Costs are per hour, in the currency of the prices."""

    streams: int
    cost_ms: float
    streams_per_core: int
    balancer_ms: float
    machine_cores: int
    series: int
    chunk_ms: int
    replay_s: float
    core_hour: float
    gigabyte: float

    @property
    def cores(self) -> int:
        """The number of server cores."""
        return math.ceil(self.streams / self.streams_per_core)

    @property
    def balancer_cores(self) -> int:
        """The number of load balancer cores, at 50% utilization."""
        return math.ceil(self.streams * self.balancer_ms / 1000 / 0.5)

    @property
    def machines(self) -> int:
        """The number of machines for servers and load balancers."""
        return math.ceil((self.cores + self.balancer_cores) / self.machine_cores)

    def gigabit_s(self, bit_s: int) -> float:
        """Return the ingress traffic in Gbit/s, with all overhead; `bit_s` is the bit rate of the audio."""
        payload = bit_s / 8 * self.chunk_ms / 1000
        packets = math.ceil((payload + _MESSAGE_BYTES) / _PACKET_PAYLOAD_BYTES)
        chunk = payload + _MESSAGE_BYTES + packets * _PACKET_BYTES
        return self.streams * chunk * 8 * 1000 / self.chunk_ms / 1e9

    @property
    def time_series(self) -> int:
        """The number of metric time series of all servers."""
        return self.cores * self.series

    @property
    def catch_up_s(self) -> float:
        """How long the other servers process replayed audio after a third of the servers, one zone, fails.

        Their cores may be 90% utilized during that time. Infinite if the additional streams alone exceed
        that.
        """
        utilization = self.streams_per_core * self.cost_ms / 1000 * 3 / 2
        replay = self.streams_per_core / 2 * self.replay_s * self.cost_ms / 1000
        return replay / (0.9 - utilization) if utilization < 0.9 else math.inf

    @property
    def core_cost(self) -> float:
        """The cost of all cores per hour."""
        return (self.cores + self.balancer_cores) * self.core_hour

    def traffic_cost(self, bit_s: int) -> float:
        """Return the cost of ingress traffic per hour, for providers that charge for it by the gigabyte."""
        return self.gigabit_s(bit_s) / 8 * 3600 * self.gigabyte


def main(argv: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    values = vars(options)
    plans = [Plan(streams=streams, **values) for streams in values.pop("streams")]
    print_row(["", *(f"{plan.streams:,}" for plan in plans)])
    print_row(["---", *["---:"] * len(plans)])
    rows: list[tuple[str, list[str]]] = [
        ("server cores", [f"{plan.cores:,}" for plan in plans]),
        ("load balancer cores", [f"{plan.balancer_cores:,}" for plan in plans]),
        (f"machines of {options.machine_cores} cores", [f"{plan.machines:,}" for plan in plans]),
    ]
    rows += [
        (f"ingress, Gbit/s, {name}", [f"{plan.gigabit_s(bits):,.1f}" for plan in plans])
        for name, bits in _FORMATS.items()
    ]
    rows += [
        ("metric time series", [f"{plan.time_series:,}" for plan in plans]),
        ("catch-up time after a zone failure, s", [f"{plan.catch_up_s:.0f}" for plan in plans]),
        ("cost per hour, cores", [f"{plan.core_cost:,.2f}" for plan in plans]),
    ]
    rows += [
        (f"cost per hour, traffic, {name}", [f"{plan.traffic_cost(bits):,.2f}" for plan in plans])
        for name, bits in _FORMATS.items()
    ]
    for name, cells in rows:
        print_row([name, *cells])
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.capacity_plan",
        description="Compute the machines and the money for many streams from the cost of one stream.",
        allow_abbrev=False,
    )
    above_zero = arguments.number(1e-6, 1e6)
    for name, parse, default, description in (
        ("--streams", arguments.counts, [10_000, 1_000_000, 100_000_000], "concurrent streams"),
        ("--cost-ms", above_zero, 3.1, "server CPU time per stream-second, in ms"),
        ("--streams-per-core", arguments.count, 160, "streams per core"),
        ("--balancer-ms", above_zero, 0.3, "load balancer CPU time per stream-second, in ms"),
        ("--machine-cores", arguments.count, 16, "cores per machine"),
        ("--series", arguments.count, 500, "metric time series per server"),
        ("--chunk-ms", arguments.count, 100, "audio per message, in ms"),
        ("--replay-s", above_zero, 3.0, "audio that a resumed stream replays, in s"),
        ("--core-hour", above_zero, 0.04, "price per core and hour"),
        ("--gigabyte", above_zero, 0.008, "price per gigabyte through a managed load balancer"),
    ):
        shown = ",".join(map(str, default)) if isinstance(default, list) else default
        parser.add_argument(name, type=parse, default=default, help=f"{description} (default: {shown})")
    return parser


if __name__ == "__main__":
    sys.exit(main())
