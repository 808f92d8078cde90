"""Load a server with chunks of various sizes, including single bytes, and print what each size costs.

    python -m benchmarks.chunk_sizes [--chunk-ms 0,10,20,40,80,100,1000] [--streams 20] [--seconds 20]

0 stands for chunks of one byte. They are sent in real time too, 32,000 per second and stream. There is
therefore only one such stream, and it is short.
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

    from benchmarks.loadgen.workload import Measurement

COLUMNS = (
    "chunk",
    "streams",
    "server CPU, ms per stream-s",
    "generator CPU, ms per stream-s",
    "latency p50, ms",
    "latency p99, ms",
    "detections, received / expected",
    "send lag p99, ms",
)


def main(argv: Sequence[str] | None = None) -> int:
    parser = arguments.make_parser("chunk_sizes", "Print what chunks of various sizes cost.")
    parser.add_argument(
        "--chunk-ms",
        type=_sizes,
        default=[0, 10, 20, 40, 80, 100, 1000],
        metavar="N,...",
        help="chunk sizes in ms; 0 is one byte (default: 0,10,20,40,80,100,1000)",
    )
    parser.add_argument(
        "--streams", type=arguments.count, default=20, help="concurrent streams (default: 20)"
    )
    parser.add_argument(
        "--seconds", type=arguments.seconds, default=20.0, help="length of every stream (default: 20)"
    )
    parser.add_argument(
        "--byte-seconds",
        type=arguments.seconds,
        default=3.0,
        help="length of the stream of single bytes (default: 3)",
    )
    options = parser.parse_args(argv)
    return arguments.run("chunk_sizes", lambda: _measure(options))


def _measure(options: argparse.Namespace) -> list[str]:
    model = SpotterModel.load(options.model)
    print_header(
        f"{model.metadata.name} {model.metadata.version}, {options.seconds:g} s of {options.recording.name}",
        COLUMNS,
    )
    problems = []
    for chunk_ms in options.chunk_ms:
        speech = Speech.read(options.recording, chunk_ms)
        seconds, streams = (options.seconds, options.streams) if chunk_ms else (options.byte_seconds, 1)
        workload = Workload(speech, model, round(seconds / speech.chunk_s))
        with running_server(options.model, streams + 1) as server:
            workload.warm_up(server.address)
            measurement = workload.run(streams, server)
        name = f"{chunk_ms} ms" if chunk_ms else "1 byte"
        print_row(_row(name, measurement))
        problems += [f"{name}: {problem}" for problem in measurement.problems]
    return problems


def _row(name: str, measurement: Measurement) -> tuple[str, ...]:
    outcome = measurement.outcome
    return (
        name,
        str(measurement.streams),
        number(measurement.server_ms, 2),
        number(measurement.generator_ms, 2),
        number(percentile_ms(outcome.latencies_s, 50)),
        number(percentile_ms(outcome.latencies_s, 99)),
        f"{outcome.received} / {outcome.expected}",
        number(percentile_ms(outcome.send_lags_s, 99)),
    )


def _sizes(text: str) -> list[int]:
    return [0 if part.strip() == "0" else arguments.count(part.strip()) for part in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
