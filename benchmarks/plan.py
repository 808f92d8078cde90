"""From what a stream costs to machines and money, for few streams and very many.

    python -m benchmarks.plan [--streams 10000,1000000,100000000] [--cost-ms 1.4] [--streams-per-core 350]
                              [--core-hour 0.04] ...

Every figure follows from the options, whose defaults were measured or are assumed as docs/capacity.md
says; its table is this command's.
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

# A message of audio beside its bytes: HTTP/2 and gRPC, protobuf, a TLS record; and each packet's headers.
_MESSAGE_BYTES, _PACKET_BYTES, _PACKET_PAYLOAD_BYTES = 9 + 5 + 4 + 22, 54, 1448

_FORMATS = {"16 kHz, 16 bit": 256_000, "8 kHz, mu-law": 64_000}  # bit/s


@dataclass(frozen=True, slots=True)
class Plan:
    """What so many streams need. Money is in the currency of the prices, for an hour."""

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
        """Cores of servers."""
        return math.ceil(self.streams / self.streams_per_core)

    @property
    def balancer_cores(self) -> int:
        """Cores of balancers, half busy."""
        return math.ceil(self.streams * self.balancer_ms / 1000 / 0.5)

    @property
    def machines(self) -> int:
        """Machines for both."""
        return math.ceil((self.cores + self.balancer_cores) / self.machine_cores)

    def gigabit_s(self, bit_s: int) -> float:
        """Give what comes in of a format with so many bits a second, with all that is around the audio."""
        payload = bit_s / 8 * self.chunk_ms / 1000
        packets = math.ceil((payload + _MESSAGE_BYTES) / _PACKET_PAYLOAD_BYTES)
        chunk = payload + _MESSAGE_BYTES + packets * _PACKET_BYTES
        return self.streams * chunk * 8 * 1000 / self.chunk_ms / 1e9

    @property
    def all_series(self) -> int:
        """Time series of all servers."""
        return self.cores * self.series

    @property
    def catching_up_s(self) -> float:
        """How long the others take for what a third of the servers, a zone, leave them to hear again.

        Their cores may be 90% busy meanwhile; inf where they have no such room.
        """
        busy = self.streams_per_core * self.cost_ms / 1000 * 3 / 2
        again = self.streams_per_core / 2 * self.replay_s * self.cost_ms / 1000
        return again / (0.9 - busy) if busy < 0.9 else math.inf

    @property
    def money(self) -> float:
        """Money for cores."""
        return (self.cores + self.balancer_cores) * self.core_hour

    def money_by_gigabyte(self, bit_s: int) -> float:
        """Give what comes on top where somebody takes money for each gigabyte that comes in."""
        return self.gigabit_s(bit_s) / 8 * 3600 * self.gigabyte


def main(given: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(given)
    values = vars(options)
    plans = [Plan(streams=streams, **values) for streams in values.pop("streams")]
    print_row(["", *(f"{plan.streams:,}" for plan in plans)])
    print_row(["---", *["---:"] * len(plans)])
    rows: list[tuple[str, list[str]]] = [
        ("cores for servers", [f"{plan.cores:,}" for plan in plans]),
        ("cores for balancers", [f"{plan.balancer_cores:,}" for plan in plans]),
        (f"machines of {options.machine_cores} cores", [f"{plan.machines:,}" for plan in plans]),
    ]
    rows += [
        (f"Gbit/s in, {name}", [f"{plan.gigabit_s(bits):,.1f}" for plan in plans])
        for name, bits in _FORMATS.items()
    ]
    rows += [
        ("time series", [f"{plan.all_series:,}" for plan in plans]),
        ("a zone lost: s to catch up", [f"{plan.catching_up_s:.0f}" for plan in plans]),
        ("money an hour, cores", [f"{plan.money:,.2f}" for plan in plans]),
    ]
    rows += [
        (f"the same, by the GB, {name}", [f"{plan.money_by_gigabyte(bits):,.2f}" for plan in plans])
        for name, bits in _FORMATS.items()
    ]
    for name, cells in rows:
        print_row([name, *cells])
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.plan",
        description="From what a stream costs to machines and money.",
        allow_abbrev=False,
    )
    above_zero = arguments.number(1e-6, 1e6)
    for name, read, default, what in (
        ("--streams", arguments.counts, [10_000, 1_000_000, 100_000_000], "streams at once"),
        ("--cost-ms", above_zero, 1.4, "CPU of a server for a second of a stream, in ms"),
        ("--streams-per-core", arguments.count, 350, "streams that one core is to have"),
        ("--balancer-ms", above_zero, 0.3, "CPU of a balancer for a second of a stream, in ms"),
        ("--machine-cores", arguments.count, 16, "cores of one machine"),
        ("--series", arguments.count, 500, "time series of one server"),
        ("--chunk-ms", arguments.count, 100, "audio in one message, in ms"),
        ("--replay-s", above_zero, 3.0, "audio that a resumed stream sends again"),
        ("--core-hour", above_zero, 0.04, "price of a core for an hour"),
        ("--gigabyte", above_zero, 0.008, "price of a gigabyte through a rented balancer"),
    ):
        shown = ",".join(map(str, default)) if isinstance(default, list) else default
        parser.add_argument(name, type=read, default=default, help=f"{what} (default: {shown})")
    return parser


if __name__ == "__main__":
    sys.exit(main())
