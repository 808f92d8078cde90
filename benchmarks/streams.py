"""Load a server with real-time streams of real speech, and print what they cost.

    python -m benchmarks.streams [--streams 1,10,50,100] [--seconds 20] [--chunk-ms 100]

Prints a Markdown table with a line for each number of streams; benchmarks/README.md says what
its columns mean. Exits with 1 when a detection was lost, or came that should not have, or when
nothing could be measured; with 2 for wrong usage.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import platform
import sys
import time
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import earmark_client
import numpy as np
from earmark_client import EarmarkError, SyncClient
from earmark_spotter import SpotterError, SpotterModel

from benchmarks.generators import generators
from benchmarks.load import Load, Outcome, StreamPlan
from benchmarks.processes import ServerProcess, cpu_s, resident_bytes, serving
from benchmarks.speech import BenchmarkError, Speech

if TYPE_CHECKING:
    from collections.abc import Sequence

DEMO_RECORDING = Path(earmark_client.__file__).parent / "samples" / "demo.flac"

COLUMNS = (
    "streams",
    "server CPU, ms per stream-s",
    "generator CPU, ms per stream-s",
    "delay p50, ms",
    "delay p99, ms",
    "delay max, ms",
    "memory per stream, KB",
    "detections, got / expected",
    "sent late p99, ms",
)

# Streams begin at that many places of the recording, so that they do not all hear a word at once.
_PLACES = 16
_STREAMS_PER_GENERATOR = 500
_START_GAP_S = 0.005
_GOLDEN_RATIO = (1 + math.sqrt(5)) / 2
_WARM_UP_S = 2.0
_TOLD = 8


@dataclass(frozen=True, slots=True)
class Benchmark:
    """What is the same for every number of streams."""

    speech: Speech
    model: SpotterModel
    chunk_count: int
    generator_count: int | None
    _answers: dict[int, dict[str, int]] = field(default_factory=dict)  # by the chunk that is first

    @property
    def seconds(self) -> float:
        """How long one stream is, in audio and in time."""
        return self.chunk_count * self.speech.chunk_s

    def plans(self, stream_count: int) -> list[StreamPlan]:
        """Spread the streams over the recording, and their chunks over time."""
        chunks = len(self.speech.chunks)
        first_chunks = [place * chunks // _PLACES for place in range(min(_PLACES, stream_count))]
        for first in first_chunks:
            if first not in self._answers:
                self._answers[first] = self.speech.answers(self.model, first, self.chunk_count)
        # All of them are open for the last three quarters of the time.
        gap_s = min(_START_GAP_S, self.seconds / 4 / stream_count)
        plans = []
        for i in range(stream_count):
            first = first_chunks[i % len(first_chunks)]
            # Multiples of the golden ratio fill the time between two chunks evenly, for any count.
            start_s = i * gap_s + i * _GOLDEN_RATIO % 1 * self.speech.chunk_s
            plans.append(StreamPlan(start_s, first, self._answers[first]))
        return plans

    def loads(self, stream_count: int, address: str) -> list[Load]:
        """Divide the streams among generator processes."""
        wanted = math.ceil(stream_count / _STREAMS_PER_GENERATOR)
        count = self.generator_count or min(wanted, os.cpu_count() or 1)
        speech, plans = self.speech, self.plans(stream_count)
        config, requests = speech.config(), speech.requests()
        return [
            Load(address, config, requests, speech.chunk_s, self.chunk_count, plans[i::count])
            for i in range(min(count, stream_count))
        ]

    def warm_up(self, address: str) -> None:
        """Check that the server listens with the model whose answers are known, and let it do so once."""
        with SyncClient(address) as client:
            found = client.get_model()
            if found.sha256 != self.model.sha256:
                raise BenchmarkError(
                    f"The server's model is {found.name} {found.version} ({found.sha256[:12]}), but the "
                    f"answers are known for {self.model.metadata.name} {self.model.metadata.version} "
                    f"({self.model.sha256[:12]}): name the server's model file with --model."
                )
            audio = self.speech.chunks[: math.ceil(_WARM_UP_S / self.speech.chunk_s)]
            for _ in client.stream(audio, sample_rate_hz=self.speech.sample_rate_hz):
                pass

    def run(self, stream_count: int, server: ServerProcess, base_bytes: int | None) -> Row:
        """Load a server; `base_bytes` is its memory before."""
        with generators(self.loads(stream_count, server.address)) as ready:
            cpu_before_s = cpu_s(server.pid)
            begin_s = ready.begin()
            time.sleep(max(0.0, begin_s + 0.9 * self.seconds - time.monotonic()))
            loaded_bytes = resident_bytes(server.pid)
            outcome = ready.finish(self.seconds)
            cpu_after_s = cpu_s(server.pid)
        server_s = None if cpu_before_s is None or cpu_after_s is None else cpu_after_s - cpu_before_s
        grown = None if base_bytes is None or loaded_bytes is None else loaded_bytes - base_bytes
        return Row(stream_count, stream_count * self.seconds, server_s, grown, outcome)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    streams: int
    stream_s: float
    server_cpu_s: float | None
    grown_bytes: int | None
    outcome: Outcome

    def __str__(self) -> str:
        per_stream_s = 1000 / self.stream_s
        delays, late = self.outcome.delays_s, self.outcome.late_s
        cells = (
            str(self.streams),
            _number(None if self.server_cpu_s is None else self.server_cpu_s * per_stream_s, 2),
            _number(self.outcome.cpu_s * per_stream_s, 2),
            _number(1000 * float(np.percentile(delays, 50)) if delays else None, 1),
            _number(1000 * float(np.percentile(delays, 99)) if delays else None, 1),
            _number(1000 * max(delays) if delays else None, 1),
            _number(None if self.grown_bytes is None else self.grown_bytes / 1024 / self.streams, 0),
            f"{self.outcome.got} / {self.outcome.expected}",
            _number(1000 * float(np.percentile(late, 99)) if late else None, 1),
        )
        return _line(cells)

    @property
    def problems(self) -> list[str]:
        """What went wrong, the most frequent first, and not all of it if it is much."""
        counted = self.outcome.problems.most_common()
        found = [f"{what} ({count} times)" if count > 1 else what for what, count in counted[:_TOLD]]
        if len(counted) > _TOLD:
            found.append(f"and {sum(count for _, count in counted[_TOLD:])} problems more")
        if not self.outcome.expected:
            found.append(
                "the model hears no keyword in what was streamed, so nothing was checked: "
                "stream for longer (--seconds), or another --recording"
            )
        return found


def machine_facts() -> str:
    """Say what the figures depend on."""
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as info:
        names = [line.partition(":")[2].strip() for line in info if line.startswith("model name")]
        model = names[0] if names else model
    return (
        f"{os.cpu_count()} cores ({model}), load {os.getloadavg()[0]:.1f} before, "
        f"Python {platform.python_version()}, onnxruntime {version('onnxruntime')}, "
        f"grpcio {version('grpcio')}"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.server_pid and not options.server:
        parser.error("--server-pid belongs to --server: of a server that is started here it is known")
    try:
        return _measure(options)
    except (BenchmarkError, EarmarkError, SpotterError) as error:
        print(f"benchmarks.streams: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _measure(options: argparse.Namespace) -> int:
    speech = Speech.read(options.recording, options.chunk_ms)
    model = SpotterModel.load(options.model)
    chunk_count = max(1, round(options.seconds / speech.chunk_s))
    benchmark = Benchmark(speech, model, chunk_count, options.generators)
    if options.server_pid and cpu_s(options.server_pid) is None:
        raise BenchmarkError(f"There is no process {options.server_pid} here (--server-pid).")

    about = f"{benchmark.seconds:g} s of {options.recording.name} in chunks of {options.chunk_ms} ms"
    print(f"{machine_facts()}; {model.metadata.name} {model.metadata.version}, {about}\n")
    print(_line(COLUMNS))
    print(_line(["---:"] * len(COLUMNS)), flush=True)
    problems: list[str] = []
    base_bytes = None
    for stream_count in sorted(options.streams):
        with contextlib.ExitStack() as stack:
            if options.server:
                server = ServerProcess(options.server, options.server_pid)
            else:
                # A fresh one each time: its memory is then that of these streams alone.
                server = stack.enter_context(serving(options.model, stream_count + 1))
                base_bytes = None
            benchmark.warm_up(server.address)
            if base_bytes is None:
                base_bytes = resident_bytes(server.pid)
            row = benchmark.run(stream_count, server, base_bytes)
        print(row, flush=True)
        problems += [f"{stream_count} streams: {problem}" for problem in row.problems]
    if problems:
        print("\n" + "\n".join(problems), file=sys.stderr)
    return 1 if problems else 0


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _number(value: float | None, digits: int) -> str:
    return "n/a" if value is None else f"{value:.{digits}f}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.streams",
        description="Load a server with real-time streams of real speech, and print what they cost.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--streams",
        type=_counts,
        default=[1, 10, 50, 100],
        metavar="N,...",
        help="how many streams at once; a line of the table for each number (default: 1,10,50,100)",
    )
    parser.add_argument("--seconds", type=_seconds, default=20.0, help="length of every stream (default: 20)")
    parser.add_argument(
        "--chunk-ms", type=_count, default=100, help="audio in one message, in ms (default: 100)"
    )
    parser.add_argument(
        "--server",
        metavar="HOST:PORT",
        help="a server that runs already (default: one is started for each line)",
    )
    parser.add_argument(
        "--server-pid",
        type=_count,
        metavar="PID",
        help="that server's process, if it is on this machine: for its CPU and memory",
    )
    parser.add_argument(
        "--model", type=Path, metavar="FILE", help="the model file (default: the one that comes with Earmark)"
    )
    parser.add_argument(
        "--recording",
        type=Path,
        default=DEMO_RECORDING,
        metavar="FILE",
        help="what the streams say, in a loop: WAV, FLAC, Ogg or MP3 (default: the demo recording)",
    )
    parser.add_argument(
        "--generators",
        type=_count,
        metavar="N",
        help=f"load generator processes (default: one for every {_STREAMS_PER_GENERATOR} streams, "
        "at most one a core)",
    )
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def _counts(text: str) -> list[int]:
    return [_count(part.strip()) for part in text.split(",")]


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.5 <= value <= 86_400:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0.5 to 86400")
    return value


if __name__ == "__main__":
    sys.exit(main())
