"""Load a server with real-time streams of real speech, and print what they cost.

    python -m benchmarks.streams [--streams 1,10,50,100] [--seconds 20] [--chunk-ms 100] [--plot FILE.png]

Prints a Markdown table with a line for each number of streams; benchmarks/README.md says what
its columns mean. Exits with 1 when a detection was lost, or came that should not have, or when
nothing could be measured; with 2 for wrong usage.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from earmark_spotter import SpotterModel

from benchmarks.loadgen import arguments
from benchmarks.loadgen.server_process import ServerProcess, cpu_s, resident_bytes, serving
from benchmarks.loadgen.speech import BenchmarkError, Speech
from benchmarks.loadgen.table import number, print_head, print_row, quantile_ms
from benchmarks.loadgen.workload import STREAMS_PER_GENERATOR, Workload

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from benchmarks.loadgen.workload import Measured

COLUMNS = (
    "streams",
    "server CPU, ms per stream-s",
    "generator CPU, ms per stream-s",
    "delay p50, ms",
    "delay p99, ms",
    "delay max, ms",
    "memory per stream, KB",
    "detections, got / expected",
    "refused",
    "sent late p99, ms",
    "machine busy, %",
    "of it generators, %",
)


def row(measured: Measured) -> tuple[str, ...]:
    """Write a line of the table."""
    outcome, grown, machine_s = measured.outcome, measured.grown_bytes, measured.machine_cpu_s
    return (
        str(measured.streams),
        number(measured.server_ms, 2),
        number(measured.generator_ms, 2),
        number(quantile_ms(outcome.delays_s, 50)),
        number(quantile_ms(outcome.delays_s, 99)),
        number(quantile_ms(outcome.delays_s, 100)),
        number(None if grown is None else grown / 1024 / max(1, outcome.streams), 0),
        f"{outcome.got} / {outcome.expected}",
        str(outcome.refused),
        number(quantile_ms(outcome.late_s, 99)),
        number(measured.busy_percent, 0),
        number(100 * outcome.cpu_s / machine_s if machine_s else None, 0),
    )


def main(given: Sequence[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(given)
    if options.server_pid and not options.server:
        parser.error("--server-pid belongs to --server: of a server that is started here it is known")
    return arguments.run("streams", lambda: _measure(options))


def _measure(options: argparse.Namespace) -> list[str]:
    speech = Speech.read(options.recording, options.chunk_ms)
    model = SpotterModel.load(options.model)
    workload = Workload(speech, model, max(1, round(options.seconds / speech.chunk_s)), options.generators)
    if options.server_pid and cpu_s(options.server_pid) is None:
        raise BenchmarkError(f"There is no process {options.server_pid} here (--server-pid).")

    about = f"{workload.seconds:g} s of {options.recording.name} in chunks of {options.chunk_ms} ms"
    print_head(f"{model.metadata.name} {model.metadata.version}, {about}", COLUMNS)
    found: list[Measured] = []
    base_bytes = None
    for stream_count in sorted(options.streams):
        with contextlib.ExitStack() as stack:
            if options.server:
                server = ServerProcess(options.server, options.server_pid)
            else:
                # A fresh one each time: its memory is then that of these streams alone.
                server = stack.enter_context(serving(options.model, stream_count + 1))
                base_bytes = None
            workload.warm_up(server.address)
            if base_bytes is None:
                base_bytes = resident_bytes(server.pid)
            found.append(workload.run(stream_count, server, base_bytes))
        print_row(row(found[-1]))
    if options.plot:
        from benchmarks.loadgen.plot import plot_streams

        plot_streams(found, about, options.plot)
    return [f"{one.streams} streams: {problem}" for one in found for problem in one.problems]


def _parser() -> argparse.ArgumentParser:
    parser = arguments.parser(
        "streams", "Load a server with real-time streams of real speech, and print what they cost."
    )
    parser.add_argument(
        "--streams",
        type=arguments.counts,
        default=[1, 10, 50, 100],
        metavar="N,...",
        help="how many streams at once; a line of the table for each number (default: 1,10,50,100)",
    )
    parser.add_argument(
        "--seconds", type=arguments.seconds, default=20.0, help="length of every stream (default: 20)"
    )
    arguments.add_chunk_ms(parser)
    parser.add_argument(
        "--server",
        metavar="HOST:PORT",
        help="a server that runs already (default: one is started for each line)",
    )
    parser.add_argument(
        "--server-pid",
        type=arguments.count,
        metavar="PID",
        help="that server's process, if it is on this machine: for its CPU and memory",
    )
    parser.add_argument(
        "--generators",
        type=arguments.count,
        metavar="N",
        help=f"load generator processes (default: one for every {STREAMS_PER_GENERATOR} streams, "
        "at most one a core)",
    )
    parser.add_argument(
        "--plot", type=Path, metavar="FILE.png", help="also draw cost and delay over the number of streams"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
