"""Fill a server with real-time streams, try to open more, and print the latency of the first ones.

    python -m benchmarks.overload [--streams 1000] [--more 200] [--max-streams N] [--workers 1] [--seconds 40]

After a third of the time, further streams are opened one after the other, until nearly two thirds are over.
A rejected stream does not retry. Prints the latency of the first streams before, during and after that, and
the latency of the further streams that were admitted. Exits with 1 if a detection was lost, repeated or
unexpected, if more streams than --max-streams were admitted, or if a stream was rejected without a
RetryInfo.
"""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING

from earmark_spotter import SpotterModel

from benchmarks.loadgen import arguments
from benchmarks.loadgen.load import Outcome
from benchmarks.loadgen.server_process import running_server
from benchmarks.loadgen.speech import Speech
from benchmarks.loadgen.table import number, percentile_ms, print_header, print_row
from benchmarks.loadgen.workload import Workload, run_loads

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

COLUMNS = (
    "",
    "streams",
    "rejected",
    "latency p50, ms",
    "latency p99, ms",
    "latency max, ms",
    "detections, received / expected",
    "send lag p99, ms",
)


def main(argv: Sequence[str] | None = None) -> int:
    parser = arguments.make_parser("overload", "Fill a server with streams, then try to open more.")
    parser.add_argument(
        "--streams", type=arguments.count, default=1000, help="streams from the start (default: 1000)"
    )
    parser.add_argument(
        "--more", type=arguments.count, default=200, help="streams that try to open later (default: 200)"
    )
    parser.add_argument(
        "--max-streams",
        type=arguments.count,
        metavar="N",
        help="the stream limit of each server worker (default: --streams divided by --workers)",
    )
    parser.add_argument(
        "--workers", type=arguments.count, default=1, help="the number of server workers (default: 1)"
    )
    parser.add_argument(
        "--seconds", type=arguments.seconds, default=40.0, help="length of the streams (default: 40)"
    )
    arguments.add_chunk_ms(parser)
    options = parser.parse_args(argv)
    return arguments.run("overload", lambda: _measure(options))


def _measure(options: argparse.Namespace) -> list[str]:
    speech = Speech.read(options.recording, options.chunk_ms)
    model = SpotterModel.load(options.model)
    worker_limit = options.max_streams or math.ceil(options.streams / options.workers)
    limit = worker_limit * options.workers
    first = Workload(speech, model, max(3, round(options.seconds / speech.chunk_s)))
    later = Workload(speech, model, first.chunk_count // 3)
    third_s = first.seconds / 3
    # All admitted streams must be open at once: none may end before the last one has tried to open.
    opening_s = 0.9 * third_s
    description = f"{first.seconds:g} s of {options.recording.name} in chunks of {options.chunk_ms} ms"
    print_header(
        f"{model.metadata.name} {model.metadata.version}, {description}, at most {limit} streams", COLUMNS
    )
    with running_server(options.model, worker_limit, "--workers", str(options.workers)) as server:
        first.warm_up(server.address)
        loads = first.loads(first.plans(options.streams), server.address)
        later_plans = later.plans(options.more, after_s=third_s, within_s=opening_s)
        measurement = run_loads([*loads, *later.loads(later_plans, server.address)], server, first.seconds)
    first_outcome = Outcome.sum(measurement.outcomes[: len(loads)])
    later_outcome = Outcome.sum(measurement.outcomes[len(loads) :])
    for name, begin_s, end_s in (
        ("before", 0.0, third_s),
        (f"while {options.more} more try to open", third_s, 2 * third_s),
        ("afterwards", 2 * third_s, math.inf),
    ):
        pairs = zip(first_outcome.latencies_s, first_outcome.received_at_s, strict=True)
        latencies_s = [latency_s for latency_s, received_at_s in pairs if begin_s <= received_at_s < end_s]
        print_row(_row(name, first_outcome, latencies_s))
    print_row(_row("the later streams", later_outcome, later_outcome.latencies_s))
    print(
        f"\nServer CPU {number(measurement.server_ms, 2)} and generator CPU "
        f"{number(measurement.generator_ms, 2)} ms per stream-second, "
        f"machine CPU {number(measurement.machine_percent, 0)}%."
    )
    problems = measurement.problems
    if measurement.outcome.streams > limit:
        problems.append(f"{measurement.outcome.streams} streams were admitted, but the limit is {limit}")
    return problems


def _row(name: str, outcome: Outcome, latencies_s: Sequence[float]) -> tuple[str, ...]:
    return (
        name,
        str(outcome.streams),
        str(outcome.rejected),
        *(number(percentile_ms(latencies_s, percent)) for percent in (50, 99, 100)),
        f"{outcome.received} / {outcome.expected}",
        number(percentile_ms(outcome.send_lags_s, 99)),
    )


if __name__ == "__main__":
    sys.exit(main())
