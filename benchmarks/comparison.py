"""Put the same load on Earmark and on wyoming-openwakeword; print CPU time, delay and detections of both.

    python -m benchmarks.comparison --python VENV/bin/python [--streams 1,10,40] [--seconds 20]

Both receive the same number of real-time streams with chunks of the same length. Earmark spots all of its
keywords, over gRPC and through `earmark wyoming`, wyoming-openwakeword one. Expected detections of Earmark
are known; those of wyoming-openwakeword are what it detects itself with a single stream. The delay is from
the end of a word, as a microphone in real time records it, to the receipt of its event: the recording needs
labels beside it, as the demo recording has. Exits with 1 if Earmark lost a detection, and with 2 if
wyoming-openwakeword is not installed.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from earmark_spotter import AudioFormat, Encoding, Spotter, SpotterModel

from benchmarks.loadgen import arguments
from benchmarks.loadgen.delay import delays_s, word_ends_s
from benchmarks.loadgen.errors import BenchmarkError
from benchmarks.loadgen.server_process import cpu_s, running_server
from benchmarks.loadgen.speech import Speech
from benchmarks.loadgen.table import number, percentile_ms, print_header, print_row
from benchmarks.loadgen.workload import Workload
from benchmarks.loadgen.wyoming import is_wyoming_installed, run_bridge, run_wyoming_server, stream_to_wyoming

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from benchmarks.loadgen.wyoming import Report

COLUMNS = (
    "streams",
    "server",
    "server CPU, ms per stream-s",
    "relative to Earmark",
    "delay p50, ms",
    "delay p99, ms",
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
    ends_s = word_ends_s(options.recording)
    neighbour_recording = options.neighbour_recording or options.recording
    neighbour_speech = Speech.read(neighbour_recording, options.chunk_ms)
    neighbour_ends_s = word_ends_s(neighbour_recording)
    model = SpotterModel.load(options.model)
    workload = Workload(speech, model, max(1, round(options.seconds / speech.chunk_s)))
    description = f"{workload.seconds:g} s of speech in chunks of {options.chunk_ms} ms"
    print_header(f"{model.metadata.name} {model.metadata.version}, {description}", COLUMNS)
    problems = []
    (alone,) = _load_wyoming(options, neighbour_speech, workload.chunk_count, 1)[1]
    audio = b"".join(speech.chunks[i % len(speech.chunks)] for i in range(workload.chunk_count))
    spotter = Spotter(model, audio_format=AudioFormat(Encoding.LINEAR16, speech.sample_rate_hz))
    expected_of_one = len(spotter.feed(audio) + spotter.flush())
    for count in sorted(options.streams):
        with running_server(options.model, count + 1) as server:
            workload.warm_up(server.address)
            measurement = workload.run(count, server)
        problems += [f"{count} streams: {problem}" for problem in measurement.problems]
        outcome, earmark_ms = measurement.outcome, measurement.server_ms
        _print_row(
            (str(count), f"Earmark, {len(model.metadata.keywords)} keywords"),
            (earmark_ms, earmark_ms),
            delays_s(outcome.positions_s, ends_s, speech),
            (outcome.received, outcome.expected),
        )
        bridge_ms, by_bridge = _load_bridge(options, speech, workload.chunk_count, count)
        _print_row(
            (str(count), "Earmark with `earmark wyoming`"),
            (bridge_ms, earmark_ms),
            # Later, the end of the audio decides.
            _delays_s(by_bridge, ends_s, speech, before_s=workload.seconds + 1),
            (sum(map(len, by_bridge)), count * expected_of_one),
        )
        neighbour_ms, by_neighbour = _load_wyoming(options, neighbour_speech, workload.chunk_count, count)
        _print_row(
            (str(count), f"wyoming-openwakeword, {options.neighbour_model}"),
            (neighbour_ms, earmark_ms),
            _delays_s(by_neighbour, neighbour_ends_s, neighbour_speech),
            (sum(min(len(one), len(alone)) for one in by_neighbour), count * len(alone)),
        )
    return problems


def _delays_s(
    reports: Sequence[Sequence[Report]],
    ends_s: Sequence[float],
    speech: Speech,
    *,
    before_s: float = math.inf,
) -> list[float]:
    positions_s = [one.received_s for stream in reports for one in stream if one.received_s < before_s]
    return delays_s(positions_s, ends_s, speech)


def _load_bridge(
    options: argparse.Namespace, speech: Speech, chunk_count: int, count: int
) -> tuple[float | None, list[list[Report]]]:
    """Run `count` streams through the bridge; return the CPU time of both processes, and all detections."""
    with running_server(options.model, count + 1) as server, run_bridge(server.address) as bridge:
        before = [cpu_s(server.pid), cpu_s(bridge.pid)]
        reports = stream_to_wyoming(
            bridge, None, speech, chunk_count=chunk_count, count=count, same_keyword_ms=0
        )
        after = [cpu_s(server.pid), cpu_s(bridge.pid)]
    if None in (*before, *after):
        return None, reports
    used_s = sum(one or 0 for one in after) - sum(one or 0 for one in before)
    return 1000 * used_s / (count * chunk_count * speech.chunk_s), reports


def _load_wyoming(
    options: argparse.Namespace, speech: Speech, chunk_count: int, count: int
) -> tuple[float | None, list[list[Report]]]:
    """Run `count` streams; return the CPU time per stream-second, in ms, and each stream's detections."""
    with run_wyoming_server(options.python, options.neighbour_model) as server:
        # The server loads its models when the first stream arrives.
        stream_to_wyoming(server, options.neighbour_model, speech, chunk_count=10, count=1)
        before_s = cpu_s(server.pid)
        reports = stream_to_wyoming(
            server, options.neighbour_model, speech, chunk_count=chunk_count, count=count
        )
        after_s = cpu_s(server.pid)
    if before_s is None or after_s is None:
        return None, reports
    return 1000 * (after_s - before_s) / (count * chunk_count * speech.chunk_s), reports


def _print_row(
    server: tuple[str, str],
    cost_ms: tuple[float | None, float | None],
    delays_s: Sequence[float],
    detections: tuple[int, int],
) -> None:
    """Print a row. `server`: the number of streams, and the server; `cost_ms`: of it, and of Earmark."""
    own, earmark = cost_ms
    cells = [number(own, 2), number(own / earmark if own and earmark else None)]
    cells += [number(percentile_ms(delays_s, percent), 0) for percent in (50, 99)]
    print_row((*server, *cells, f"{detections[0]} / {detections[1]}"))


if __name__ == "__main__":
    sys.exit(main())
