"""Measure how soon a lone stream hears of a keyword, and what its server costs meanwhile.

    python -m benchmarks.latency [--seconds 120]

One stream says the recording again and again in real time, on a server that has nothing else to do.
The delay is from the sending of the chunk that decides a detection to the receipt of the event.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from earmark_spotter import SpotterModel

from benchmarks.loadgen import arguments
from benchmarks.loadgen.server_process import serving
from benchmarks.loadgen.speech import Speech
from benchmarks.loadgen.table import number, print_head, print_row, quantile_ms
from benchmarks.loadgen.workload import Workload

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

COLUMNS = (
    "detections, got / expected",
    "delay p50, ms",
    "delay p90, ms",
    "delay p99, ms",
    "delay max, ms",
    "server CPU, ms per stream-s",
    "sent late p99, ms",
)


def main(given: Sequence[str] | None = None) -> int:
    parser = arguments.parser("latency", "Measure how soon a lone stream hears of a keyword.")
    parser.add_argument(
        "--seconds", type=arguments.seconds, default=120.0, help="length of the stream (default: 120)"
    )
    arguments.add_chunk_ms(parser)
    options = parser.parse_args(given)
    return arguments.run("latency", lambda: _measure(options))


def _measure(options: argparse.Namespace) -> list[str]:
    speech = Speech.read(options.recording, options.chunk_ms)
    model = SpotterModel.load(options.model)
    workload = Workload(speech, model, max(1, round(options.seconds / speech.chunk_s)))
    about = f"{workload.seconds:g} s of {options.recording.name} in chunks of {options.chunk_ms} ms"
    print_head(f"{model.metadata.name} {model.metadata.version}, one stream, {about}", COLUMNS)
    with serving(options.model, 2) as server:
        workload.warm_up(server.address)
        measured = workload.run(1, server)
    outcome = measured.outcome
    print_row(
        (
            f"{outcome.got} / {outcome.expected}",
            *(number(quantile_ms(outcome.delays_s, percent)) for percent in (50, 90, 99, 100)),
            number(measured.server_ms, 2),
            number(quantile_ms(outcome.late_s, 99)),
        )
    )
    return measured.problems


if __name__ == "__main__":
    sys.exit(main())
