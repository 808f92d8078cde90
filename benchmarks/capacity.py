"""Fill a server with real-time streams, then try more, and print how those that run fare.

    python -m benchmarks.capacity [--streams 1000] [--more 200] [--max-streams N] [--workers 1] [--seconds 40]

After a third of the time, more streams knock, one after the other until nearly two thirds are over. A stream
that is refused does not come back. Prints the delay of the first streams' events before, meanwhile and
afterwards, and that of the others, if any were let in. Exits with 1 when a detection was lost, or came that
should not have, when a stream beyond --max-streams was let in, or one was refused without being told when to
come back.
"""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING

from earmark_spotter import SpotterModel

from benchmarks.loadgen import arguments
from benchmarks.loadgen.load import Outcome
from benchmarks.loadgen.server_process import serving
from benchmarks.loadgen.speech import Speech
from benchmarks.loadgen.table import number, print_head, print_row, quantile_ms
from benchmarks.loadgen.workload import Workload, play

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

COLUMNS = (
    "",
    "streams",
    "refused",
    "delay p50, ms",
    "delay p99, ms",
    "delay max, ms",
    "detections, got / expected",
    "sent late p99, ms",
)


def main(given: Sequence[str] | None = None) -> int:
    parser = arguments.parser("capacity", "Fill a server with streams, then try more.")
    parser.add_argument(
        "--streams", type=arguments.count, default=1000, help="streams from the start (default: 1000)"
    )
    parser.add_argument(
        "--more", type=arguments.count, default=200, help="streams that knock later (default: 200)"
    )
    parser.add_argument(
        "--max-streams",
        type=arguments.count,
        metavar="N",
        help="the limit of each of the server's workers (default: as many as --streams, in all)",
    )
    parser.add_argument(
        "--workers", type=arguments.count, default=1, help="the server's workers (default: 1)"
    )
    parser.add_argument(
        "--seconds", type=arguments.seconds, default=40.0, help="length of the streams (default: 40)"
    )
    arguments.add_chunk_ms(parser)
    options = parser.parse_args(given)
    return arguments.run("capacity", lambda: _measure(options))


def _measure(options: argparse.Namespace) -> list[str]:
    speech = Speech.read(options.recording, options.chunk_ms)
    model = SpotterModel.load(options.model)
    worker_limit = options.max_streams or math.ceil(options.streams / options.workers)
    limit = worker_limit * options.workers
    first = Workload(speech, model, max(3, round(options.seconds / speech.chunk_s)))
    later = Workload(speech, model, first.chunk_count // 3)
    third_s = first.seconds / 3
    # None of those that are let in may end before the last one knocks: then all are open at once.
    knocking_s = 0.9 * third_s
    about = f"{first.seconds:g} s of {options.recording.name} in chunks of {options.chunk_ms} ms"
    print_head(f"{model.metadata.name} {model.metadata.version}, {about}, at most {limit} streams", COLUMNS)
    with serving(options.model, worker_limit, "--workers", str(options.workers)) as server:
        first.warm_up(server.address)
        loads = first.loads(first.plans(options.streams), server.address)
        knocking = later.plans(options.more, after_s=third_s, within_s=knocking_s)
        measured = play([*loads, *later.loads(knocking, server.address)], server, first.seconds)
    those = Outcome.sum(measured.outcomes[: len(loads)])
    others = Outcome.sum(measured.outcomes[len(loads) :])
    for name, begin_s, end_s in (
        ("before", 0.0, third_s),
        (f"while {options.more} more knock", third_s, 2 * third_s),
        ("afterwards", 2 * third_s, math.inf),
    ):
        pairs = zip(those.delays_s, those.heard_s, strict=True)
        print_row(_row(name, those, [delay_s for delay_s, heard_s in pairs if begin_s <= heard_s < end_s]))
    print_row(_row("those that knocked", others, others.delays_s))
    print(
        f"\nServer CPU {number(measured.server_ms, 2)} and generator CPU {number(measured.generator_ms, 2)} "
        f"ms per stream-s, machine busy {number(measured.busy_percent, 0)}%."
    )
    problems = measured.problems
    if measured.outcome.streams > limit:
        problems.append(f"{measured.outcome.streams} streams were let in, but the limit is {limit}")
    return problems


def _row(name: str, outcome: Outcome, delays_s: Sequence[float]) -> tuple[str, ...]:
    return (
        name,
        str(outcome.streams),
        str(outcome.refused),
        *(number(quantile_ms(delays_s, percent)) for percent in (50, 99, 100)),
        f"{outcome.got} / {outcome.expected}",
        number(quantile_ms(outcome.late_s, 99)),
    )


if __name__ == "__main__":
    sys.exit(main())
