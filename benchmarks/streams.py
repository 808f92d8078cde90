"""Load a server with real-time streams of real speech, and print their cost and latency.

    python -m benchmarks.streams [--streams 1,10,50,100] [--seconds 20] [--floor] [--plot FILE.png]

Prints a Markdown table with one row per number of streams. benchmarks/README.md describes its columns.
Exits with 1 if a detection was lost, repeated or unexpected, or if nothing could be measured, and with 2
for wrong options.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from earmark_spotter import SpotterModel

from benchmarks.loadgen import arguments
from benchmarks.loadgen.empty_server import running_empty_server
from benchmarks.loadgen.errors import BenchmarkError
from benchmarks.loadgen.server_process import ServerProcess, cpu_s, resident_bytes, running_server
from benchmarks.loadgen.speech import Speech
from benchmarks.loadgen.table import number, percentile_ms, print_header, print_row
from benchmarks.loadgen.workload import STREAMS_PER_GENERATOR, Workload

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from benchmarks.loadgen.workload import Measurement

COLUMNS = (
    "streams",
    "server CPU, ms per stream-s",
    "generator CPU, ms per stream-s",
    "latency p50, ms",
    "latency p99, ms",
    "latency max, ms",
    "memory per stream, KB",
    "detections, received / expected",
    "rejected",
    "send lag p99, ms",
    "machine CPU, %",
    "share of the generators, %",
)
FLOOR_COLUMNS = ("empty server, ms per stream-s", "relative to it")


def _row(measurement: Measurement) -> tuple[str, ...]:
    outcome, grown, machine_s = (
        measurement.outcome,
        measurement.grown_bytes,
        measurement.machine_cpu_s,
    )
    return (
        str(measurement.streams),
        number(measurement.server_ms, 2),
        number(measurement.generator_ms, 2),
        number(percentile_ms(outcome.latencies_s, 50)),
        number(percentile_ms(outcome.latencies_s, 99)),
        number(percentile_ms(outcome.latencies_s, 100)),
        number(None if grown is None else grown / 1024 / max(1, outcome.streams), 0),
        f"{outcome.received} / {outcome.expected}",
        str(outcome.rejected),
        number(percentile_ms(outcome.send_lags_s, 99)),
        number(measurement.machine_percent, 0),
        number(100 * outcome.cpu_s / machine_s if machine_s else None, 0),
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(argv)
    if options.server_pid and not options.server:
        parser.error("--server-pid needs --server: it is the process of that server")
    return arguments.run("streams", lambda: _measure(options))


def _measure(options: argparse.Namespace) -> list[str]:
    speech = Speech.read(options.recording, options.chunk_ms)
    model = SpotterModel.load(options.model)
    workload = Workload(speech, model, max(1, round(options.seconds / speech.chunk_s)), options.generators)
    if options.server_pid and cpu_s(options.server_pid) is None:
        raise BenchmarkError(f"There is no process {options.server_pid} on this machine: check --server-pid.")

    description = f"{workload.seconds:g} s of {options.recording.name} in chunks of {options.chunk_ms} ms"
    columns = COLUMNS + FLOOR_COLUMNS if options.floor else COLUMNS
    print_header(f"{model.metadata.name} {model.metadata.version}, {description}", columns)
    measurements: list[Measurement] = []
    base_bytes = None
    for stream_count in sorted(options.streams):
        with contextlib.ExitStack() as stack:
            if options.server:
                server = ServerProcess(options.server, options.server_pid)
            else:
                # A new server each time: the growth of its memory is then due to these streams alone.
                server = stack.enter_context(running_server(options.model, stream_count + 1))
                base_bytes = None
            workload.warm_up(server.address)
            if base_bytes is None:
                base_bytes = resident_bytes(server.pid)
            measurements.append(workload.run(stream_count, server, base_bytes))
        row = _row(measurements[-1])
        if options.floor:
            with running_empty_server() as empty:
                floor_ms = workload.run_empty(stream_count, empty).server_ms
            server_ms = measurements[-1].server_ms
            ratio = server_ms / floor_ms if server_ms and floor_ms else None
            row += (number(floor_ms, 2), number(ratio, 2))
        print_row(row)
    if options.plot:
        from benchmarks.loadgen.plot import plot_streams

        plot_streams(measurements, description, options.plot)
    return [f"{one.streams} streams: {problem}" for one in measurements for problem in one.problems]


def _parser() -> argparse.ArgumentParser:
    parser = arguments.make_parser(
        "streams", "Load a server with real-time streams of real speech, and print their cost and latency."
    )
    parser.add_argument(
        "--streams",
        type=arguments.counts,
        default=[1, 10, 50, 100],
        metavar="N,...",
        help="numbers of concurrent streams; the table has one row for each (default: 1,10,50,100)",
    )
    parser.add_argument(
        "--seconds", type=arguments.seconds, default=20.0, help="length of every stream (default: 20)"
    )
    arguments.add_chunk_ms(parser)
    parser.add_argument(
        "--server",
        metavar="HOST:PORT",
        help="a server that is already running (default: start one for each row)",
    )
    parser.add_argument(
        "--server-pid",
        type=arguments.count,
        metavar="PID",
        help="the process id of that server, if it runs on this machine: measures its CPU and memory",
    )
    parser.add_argument(
        "--generators",
        type=arguments.count,
        metavar="N",
        help=f"number of load generator processes (default: one per {STREAMS_PER_GENERATOR} streams, "
        "at most one per core)",
    )
    parser.add_argument(
        "--floor",
        action="store_true",
        help="put each load on a grpc.aio server that does nothing, too, and compare the CPU time",
    )
    parser.add_argument(
        "--plot", type=Path, metavar="FILE.png", help="also plot cost and latency over the number of streams"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
