"""Put the same load on Earmark and on wyoming-openwakeword, and print the CPU time of both.

    python -m benchmarks.comparison --python VENV/bin/python [--streams 1,10,40] [--seconds 20]

Both receive the same number of real-time streams with chunks of the same length. Earmark spots all of its
keywords, over gRPC and through `earmark wyoming`, wyoming-openwakeword one. Expected detections of Earmark
are known; those of wyoming-openwakeword are what it detects itself with a single stream. Exits with 1 if
Earmark lost a detection, and with 2 if wyoming-openwakeword is not installed.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from earmark_spotter import AudioFormat, Encoding, Spotter, SpotterModel

from benchmarks.loadgen import arguments
from benchmarks.loadgen.errors import BenchmarkError
from benchmarks.loadgen.server_process import cpu_s, running_server
from benchmarks.loadgen.speech import Speech
from benchmarks.loadgen.table import number, print_header, print_row
from benchmarks.loadgen.workload import Workload
from benchmarks.loadgen.wyoming import is_wyoming_installed, run_bridge, run_wyoming_server, stream_to_wyoming

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

COLUMNS = (
    "streams",
    "server",
    "server CPU, ms per stream-s",
    "relative to Earmark",
    "detections, received / expected",
)

_INSTALLATION = """{python} has no wyoming-openwakeword. It needs an older numpy, so install it separately:
    python3 -m venv neighbour && neighbour/bin/pip install wyoming-openwakeword==1.8.2 'numpy<2'
    python -m benchmarks.comparison --python neighbour/bin/python"""


def main(argv: Sequence[str] | None = None) -> int:
    parser = arguments.make_parser("comparison", "Put the same load on Earmark and on wyoming-openwakeword.")
    parser.add_argument(
        "--python",
        type=Path,
        default=Path(sys.executable),
        metavar="FILE",
        help="the Python interpreter of the environment that has wyoming-openwakeword (default: this one)",
    )
    parser.add_argument(
        "--neighbour-model",
        default="hey_jarvis",
        metavar="NAME",
        help="the keyword model of wyoming-openwakeword (default: hey_jarvis)",
    )
    parser.add_argument(
        "--neighbour-recording",
        type=Path,
        metavar="FILE",
        help="a recording of wyoming-openwakeword's keyword (default: the same as for Earmark)",
    )
    parser.add_argument(
        "--streams",
        type=arguments.counts,
        default=[1, 10, 40],
        metavar="N,...",
        help="numbers of concurrent streams (default: 1,10,40)",
    )
    parser.add_argument(
        "--seconds", type=arguments.seconds, default=20.0, help="length of every stream (default: 20)"
    )
    arguments.add_chunk_ms(parser)
    options = parser.parse_args(argv)
    try:
        installed = is_wyoming_installed(options.python)
    except BenchmarkError as error:
        parser.error(str(error))
    if not installed:
        print(_INSTALLATION.format(python=options.python), file=sys.stderr)
        return 2
    return arguments.run("comparison", lambda: _measure(options))


def _measure(options: argparse.Namespace) -> list[str]:
    speech = Speech.read(options.recording, options.chunk_ms)
    wyoming_speech = Speech.read(options.neighbour_recording or options.recording, options.chunk_ms)
    model = SpotterModel.load(options.model)
    workload = Workload(speech, model, max(1, round(options.seconds / speech.chunk_s)))
    description = f"{workload.seconds:g} s of speech in chunks of {options.chunk_ms} ms"
    print_header(f"{model.metadata.name} {model.metadata.version}, {description}", COLUMNS)
    problems = []
    (single_count,) = _load_wyoming(options, wyoming_speech, workload.chunk_count, 1)[1]
    audio = b"".join(speech.chunks[i % len(speech.chunks)] for i in range(workload.chunk_count))
    spotter = Spotter(model, audio_format=AudioFormat(Encoding.LINEAR16, speech.sample_rate_hz))
    expected_of_one = len(spotter.feed(audio) + spotter.flush())
    for count in sorted(options.streams):
        with running_server(options.model, count + 1) as server:
            workload.warm_up(server.address)
            measurement = workload.run(count, server)
        problems += [f"{count} streams: {problem}" for problem in measurement.problems]
        outcome, earmark_ms = measurement.outcome, measurement.server_ms
        keywords = len(model.metadata.keywords)
        _print_row(
            count,
            f"Earmark, {keywords} keywords",
            earmark_ms,
            earmark_ms,
            (outcome.received, outcome.expected),
        )
        bridge_ms, received = _load_bridge(options, speech, workload.chunk_count, count)
        by_bridge = received, count * expected_of_one
        _print_row(count, "Earmark with `earmark wyoming`", bridge_ms, earmark_ms, by_bridge)
        wyoming_ms, counts = _load_wyoming(options, wyoming_speech, workload.chunk_count, count)
        detections = (sum(min(one, single_count) for one in counts), count * single_count)
        name = f"wyoming-openwakeword, {options.neighbour_model}"
        _print_row(count, name, wyoming_ms, earmark_ms, detections)
    return problems


def _load_bridge(
    options: argparse.Namespace, speech: Speech, chunk_count: int, count: int
) -> tuple[float | None, int]:
    """Run `count` streams through the bridge; return the CPU time of both processes, and all detections."""
    with running_server(options.model, count + 1) as server, run_bridge(server.address) as bridge:
        before = [cpu_s(server.pid), cpu_s(bridge.pid)]
        counts = stream_to_wyoming(
            bridge, None, speech, chunk_count=chunk_count, count=count, same_keyword_ms=0
        )
        after = [cpu_s(server.pid), cpu_s(bridge.pid)]
    if None in (*before, *after):
        return None, sum(counts)
    used_s = sum(one or 0 for one in after) - sum(one or 0 for one in before)
    return 1000 * used_s / (count * chunk_count * speech.chunk_s), sum(counts)


def _load_wyoming(
    options: argparse.Namespace, speech: Speech, chunk_count: int, count: int
) -> tuple[float | None, list[int]]:
    """Run `count` streams; return the CPU time per stream-second, in ms, and each stream's detections."""
    with run_wyoming_server(options.python, options.neighbour_model) as server:
        # The server loads its models when the first stream arrives.
        stream_to_wyoming(server, options.neighbour_model, speech, chunk_count=10, count=1)
        before_s = cpu_s(server.pid)
        counts = stream_to_wyoming(
            server, options.neighbour_model, speech, chunk_count=chunk_count, count=count
        )
        after_s = cpu_s(server.pid)
    if before_s is None or after_s is None:
        return None, counts
    return 1000 * (after_s - before_s) / (count * chunk_count * speech.chunk_s), counts


def _print_row(
    count: int, name: str, cost_ms: float | None, earmark_ms: float | None, detections: tuple[int, int]
) -> None:
    ratio = cost_ms / earmark_ms if cost_ms and earmark_ms else None
    print_row((str(count), name, number(cost_ms, 2), number(ratio), f"{detections[0]} / {detections[1]}"))


if __name__ == "__main__":
    sys.exit(main())
