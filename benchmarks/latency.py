"""Measure the latency of detections on a single stream, and what the stream costs.

    python -m benchmarks.latency [--seconds 120]

One stream sends the recording in a loop in real time, to an otherwise idle server. The latency is the time
from sending the chunk that decides a detection to receiving the event.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from earmark_spotter import SpotterModel

from benchmarks.loadgen import arguments
from benchmarks.loadgen.server_process import running_server
from benchmarks.loadgen.speech import Speech
from benchmarks.loadgen.table import number, percentile_ms, print_header, print_row
from benchmarks.loadgen.workload import Workload

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

COLUMNS = (
    "detections, received / expected",
    "latency p50, ms",
    "latency p90, ms",
    "latency p99, ms",
    "latency max, ms",
    "server CPU, ms per stream-s",
    "send lag p99, ms",
)


def main(argv: Sequence[str] | None = None) -> int:
    parser = arguments.make_parser("latency", "Measure the latency of detections on a single stream.")
    parser.add_argument(
        "--seconds", type=arguments.seconds, default=120.0, help="length of the stream (default: 120)"
    )
    arguments.add_chunk_ms(parser)
    options = parser.parse_args(argv)
    return arguments.run("latency", lambda: _measure(options))


def _measure(options: argparse.Namespace) -> list[str]:
    speech = Speech.read(options.recording, options.chunk_ms)
    model = SpotterModel.load(options.model)
    workload = Workload(speech, model, max(1, round(options.seconds / speech.chunk_s)))
    description = f"{workload.seconds:g} s of {options.recording.name} in chunks of {options.chunk_ms} ms"
    print_header(f"{model.metadata.name} {model.metadata.version}, one stream, {description}", COLUMNS)
    with running_server(options.model, 2) as server:
        workload.warm_up(server.address)
        measurement = workload.run(1, server)
    outcome = measurement.outcome
    print_row(
        (
            f"{outcome.received} / {outcome.expected}",
            *(number(percentile_ms(outcome.latencies_s, percent)) for percent in (50, 90, 99, 100)),
            number(measurement.server_ms, 2),
            number(percentile_ms(outcome.send_lags_s, 99)),
        )
    )
    return measurement.problems


if __name__ == "__main__":
    sys.exit(main())
