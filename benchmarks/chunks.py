"""Load a server with chunks of many lengths, single bytes included, and print what each length costs.

    python -m benchmarks.chunks [--chunk-ms 0,10,20,40,80,100,1000] [--streams 20] [--seconds 20]

0 stands for chunks of one byte. Those are sent as fast as they are spoken, too: 32,000 a second for each
stream, so there is but one such stream, and it is short.
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

    from benchmarks.loadgen.workload import Measured

COLUMNS = (
    "chunk",
    "streams",
    "server CPU, ms per stream-s",
    "generator CPU, ms per stream-s",
    "delay p50, ms",
    "delay p99, ms",
    "detections, got / expected",
    "sent late p99, ms",
)


def main(given: Sequence[str] | None = None) -> int:
    parser = arguments.parser("chunks", "Print what chunks of many lengths cost.")
    parser.add_argument(
        "--chunk-ms",
        type=_lengths,
        default=[0, 10, 20, 40, 80, 100, 1000],
        metavar="N,...",
        help="lengths of chunks; 0 is one byte (default: 0,10,20,40,80,100,1000)",
    )
    parser.add_argument("--streams", type=arguments.count, default=20, help="streams at once (default: 20)")
    parser.add_argument(
        "--seconds", type=arguments.seconds, default=20.0, help="length of every stream (default: 20)"
    )
    parser.add_argument(
        "--byte-seconds",
        type=arguments.seconds,
        default=3.0,
        help="length of the stream of single bytes (default: 3)",
    )
    options = parser.parse_args(given)
    return arguments.run("chunks", lambda: _measure(options))


def _measure(options: argparse.Namespace) -> list[str]:
    model = SpotterModel.load(options.model)
    print_head(
        f"{model.metadata.name} {model.metadata.version}, {options.seconds:g} s of {options.recording.name}",
        COLUMNS,
    )
    problems = []
    for chunk_ms in options.chunk_ms:
        speech = Speech.read(options.recording, chunk_ms)
        seconds, streams = (options.seconds, options.streams) if chunk_ms else (options.byte_seconds, 1)
        workload = Workload(speech, model, round(seconds / speech.chunk_s))
        with serving(options.model, streams + 1) as server:
            workload.warm_up(server.address)
            measured = workload.run(streams, server)
        name = f"{chunk_ms} ms" if chunk_ms else "1 byte"
        print_row(_row(name, measured))
        problems += [f"{name}: {problem}" for problem in measured.problems]
    return problems


def _row(name: str, measured: Measured) -> tuple[str, ...]:
    outcome = measured.outcome
    return (
        name,
        str(measured.streams),
        number(measured.server_ms, 2),
        number(measured.generator_ms, 2),
        number(quantile_ms(outcome.delays_s, 50)),
        number(quantile_ms(outcome.delays_s, 99)),
        f"{outcome.got} / {outcome.expected}",
        number(quantile_ms(outcome.late_s, 99)),
    )


def _lengths(text: str) -> list[int]:
    return [0 if part.strip() == "0" else arguments.count(part.strip()) for part in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
