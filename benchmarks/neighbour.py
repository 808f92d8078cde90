"""Put the same load on Earmark and on its nearest neighbour, wyoming-openwakeword, and print the ratio.

    python -m benchmarks.neighbour --python VENV/bin/python [--streams 1,10,40] [--seconds 20]

Both listen to as many real-time streams, in chunks of the same length: Earmark for all of its keywords, the
neighbour for one. What a stream must hear is known for Earmark; for the neighbour, it is what it hears itself
with a single stream. Exits with 1 when Earmark lost a detection, and with 2 when the neighbour is not there.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from earmark_spotter import SpotterModel

from benchmarks.loadgen import arguments
from benchmarks.loadgen.server_process import cpu_s, serving
from benchmarks.loadgen.speech import BenchmarkError, Speech
from benchmarks.loadgen.table import number, print_head, print_row
from benchmarks.loadgen.workload import Workload
from benchmarks.loadgen.wyoming import is_installed, serving_neighbour, stream_to_neighbour

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

COLUMNS = ("streams", "server", "CPU, ms per stream-s", "times Earmark's", "words heard / expected")

_HOW = """{python} has no wyoming-openwakeword. It needs an older numpy, so give it an environment of its own:
    python3 -m venv neighbour && neighbour/bin/pip install wyoming-openwakeword==1.8.2 'numpy<2'
    python -m benchmarks.neighbour --python neighbour/bin/python"""


def main(given: Sequence[str] | None = None) -> int:
    parser = arguments.parser("neighbour", "Put the same load on Earmark and on wyoming-openwakeword.")
    parser.add_argument(
        "--python",
        type=Path,
        default=Path(sys.executable),
        metavar="FILE",
        help="the Python interpreter of the environment that wyoming-openwakeword is installed in",
    )
    parser.add_argument(
        "--neighbour-model",
        default="hey_jarvis",
        metavar="NAME",
        help="its keyword model (default: hey_jarvis)",
    )
    parser.add_argument(
        "--neighbour-recording",
        type=Path,
        metavar="FILE",
        help="what its streams say: a recording of its keyword (default: the same as Earmark's)",
    )
    parser.add_argument(
        "--streams",
        type=arguments.counts,
        default=[1, 10, 40],
        metavar="N,...",
        help="how many streams at once (default: 1,10,40)",
    )
    parser.add_argument(
        "--seconds", type=arguments.seconds, default=20.0, help="length of every stream (default: 20)"
    )
    arguments.add_chunk_ms(parser)
    options = parser.parse_args(given)
    try:
        installed = is_installed(options.python)
    except BenchmarkError as error:
        parser.error(str(error))
    if not installed:
        print(_HOW.format(python=options.python), file=sys.stderr)
        return 2
    return arguments.run("neighbour", lambda: _measure(options))


def _measure(options: argparse.Namespace) -> list[str]:
    speech = Speech.read(options.recording, options.chunk_ms)
    its_speech = Speech.read(options.neighbour_recording or options.recording, options.chunk_ms)
    model = SpotterModel.load(options.model)
    workload = Workload(speech, model, max(1, round(options.seconds / speech.chunk_s)))
    about = f"{workload.seconds:g} s of speech in chunks of {options.chunk_ms} ms"
    print_head(f"{model.metadata.name} {model.metadata.version}, {about}", COLUMNS)
    problems = []
    lone_heard = _load_neighbour(options, its_speech, workload.chunk_count, 1)[1]
    for count in sorted(options.streams):
        with serving(options.model, count + 1) as server:
            workload.warm_up(server.address)
            measured = workload.run(count, server)
        problems += [f"{count} streams: {problem}" for problem in measured.problems]
        outcome, ours_ms = measured.outcome, measured.server_ms
        keywords = len(model.metadata.keywords)
        _print(count, f"Earmark, {keywords} keywords", ours_ms, ours_ms, (outcome.got, outcome.expected))
        its_ms, heard = _load_neighbour(options, its_speech, workload.chunk_count, count)
        words = (sum(min(one, lone_heard[0]) for one in heard), count * lone_heard[0])
        _print(count, f"wyoming-openwakeword, {options.neighbour_model}", its_ms, ours_ms, words)
    return problems


def _load_neighbour(
    options: argparse.Namespace, speech: Speech, chunk_count: int, count: int
) -> tuple[float | None, list[int]]:
    """Load it; return its CPU time, in ms per stream-second, and how many words each stream heard."""
    with serving_neighbour(options.python, options.neighbour_model) as server:
        # It loads its models when it is first asked to listen.
        stream_to_neighbour(server, options.neighbour_model, speech, chunk_count=10, count=1)
        before_s = cpu_s(server.pid)
        heard = stream_to_neighbour(
            server, options.neighbour_model, speech, chunk_count=chunk_count, count=count
        )
        after_s = cpu_s(server.pid)
    if before_s is None or after_s is None:
        return None, heard
    return 1000 * (after_s - before_s) / (count * chunk_count * speech.chunk_s), heard


def _print(
    count: int, name: str, cost_ms: float | None, ours_ms: float | None, words: tuple[int, int]
) -> None:
    ratio = cost_ms / ours_ms if cost_ms and ours_ms else None
    print_row((str(count), name, number(cost_ms, 2), number(ratio), f"{words[0]} / {words[1]}"))


if __name__ == "__main__":
    sys.exit(main())
