"""Measure a server's memory per open stream, and its memory growth over many short streams.

    python -m benchmarks.memory [--open 100,1000] [--soak 100000] [--at-once 200] [--clip-ms 500]
                                [--cancel-every 3]

First, real-time streams: the growth of memory per stream. Then a soak test: many streams that send a clip
at full speed and end, every third of them by a cancellation midway (with `--cancel-every 1` all of them).
After a warm-up, memory is sampled ten times. Exits with 1 if the lowest of the last three samples is more
than 5% above the lowest of the first three, if a detection was lost, repeated or unexpected, or if the
server afterwards does not admit exactly as many streams as before.
"""

from __future__ import annotations

import itertools
import math
import sys
import time
from typing import TYPE_CHECKING

from earmark_spotter import SpotterModel

from benchmarks.loadgen import arguments
from benchmarks.loadgen.errors import BenchmarkError
from benchmarks.loadgen.full_speed_calls import FullSpeedStream, run_calls
from benchmarks.loadgen.http2_connections import Connections
from benchmarks.loadgen.http2_frames import prefixed
from benchmarks.loadgen.load import Outcome
from benchmarks.loadgen.load_client import METHOD, STREAMS_PER_CONNECTION
from benchmarks.loadgen.server_process import ServerProcess, resident_bytes, running_server
from benchmarks.loadgen.speech import Speech
from benchmarks.loadgen.table import number, print_header, print_row
from benchmarks.loadgen.workload import Workload

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Sequence

    from benchmarks.loadgen.http2_client import Connection
    from benchmarks.loadgen.http2_frames import GrpcStatus

_CHUNK_MS = 100
_START_POSITIONS = 16
_SAMPLES = 10
_WARM_UP_SHARE = 0.15
_MAX_GROWTH = 1.05
_COMPARED_SAMPLES = 3
RELEASE_TIMEOUT_S = 10
_MB = 1 << 20


def main(argv: Sequence[str] | None = None) -> int:
    parser = arguments.make_parser(
        "memory", "Measure a server's memory per open stream, and its growth over many short streams."
    )
    parser.add_argument(
        "--open",
        type=arguments.counts,
        default=[100, 1000],
        metavar="N,...",
        help="numbers of concurrent streams (default: 100,1000)",
    )
    parser.add_argument(
        "--seconds", type=arguments.seconds, default=8.0, help="length of these streams (default: 8)"
    )
    parser.add_argument(
        "--soak",
        type=arguments.count,
        default=100_000,
        metavar="N",
        help="number of short streams (default: 100000)",
    )
    parser.add_argument(
        "--at-once", type=arguments.count, default=200, help="short streams at a time (default: 200)"
    )
    parser.add_argument(
        "--clip-ms",
        type=arguments.count,
        default=500,
        help="audio of each short stream, in ms (default: 500)",
    )
    parser.add_argument(
        "--cancel-every",
        type=arguments.count,
        default=3,
        metavar="N",
        help="cancel every N-th short stream midway; 1: all (default: 3)",
    )
    options = parser.parse_args(argv)
    return arguments.run("memory", lambda: _measure(options))


def _measure(options: argparse.Namespace) -> list[str]:
    speech = Speech.read(options.recording, _CHUNK_MS)
    model = SpotterModel.load(options.model)
    description = f"{model.metadata.name} {model.metadata.version}, {options.recording.name}"
    print_header(
        description, ("open streams", "memory before, MB", "memory with streams, MB", "KB per stream")
    )
    problems = []
    for count in options.open:
        problems += _measure_open_streams(count, speech, model, options)
    return problems + _soak(speech, model, options)


def _measure_open_streams(
    count: int, speech: Speech, model: SpotterModel, options: argparse.Namespace
) -> list[str]:
    """Measure the memory of concurrent real-time streams, and print the row."""
    workload = Workload(speech, model, max(1, round(options.seconds / speech.chunk_s)))
    with running_server(options.model, count + 1) as server:
        workload.warm_up(server.address)
        before = _resident_bytes(server)
        measurement = workload.run(count, server, before)
    grown = measurement.grown_bytes or 0
    print_row(
        (str(count), number(before / _MB), number((before + grown) / _MB), number(grown / 1024 / count, 0))
    )
    return [f"{count} open streams: {problem}" for problem in measurement.problems]


def _soak(speech: Speech, model: SpotterModel, options: argparse.Namespace) -> list[str]:
    """Run the soak test, and print a row per sample."""
    chunk_count = max(1, round(options.clip_ms / _CHUNK_MS))
    clips = _clips(speech, model, chunk_count, options.cancel_every)
    # The server releases a cancelled stream slightly later than the next one opens.
    limit = 2 * options.at_once
    warm_up = min(max(round(_WARM_UP_SHARE * options.soak), 10 * options.at_once), options.soak // 2)
    total = Outcome()
    print()
    print_row(("streams so far", "streams per s", "memory, MB", "% of the first sample"))
    print_row(["---:"] * 4)
    # Overload protection is off: latency does not matter here.
    with running_server(options.model, limit, "--max-load", "1", "--max-lag-s", "60") as server:
        Workload(speech, model, 1).warm_up(server.address)
        connections = _connect(server, options.at_once)
        done = 0
        memory: list[int] = []
        for sample in range(_SAMPLES + 1):
            target = warm_up + round((options.soak - warm_up) * sample / _SAMPLES)
            begin_s = time.monotonic()
            total.add(run_calls(connections, itertools.islice(clips, target - done), options.at_once))
            rate, done = (target - done) / (time.monotonic() - begin_s), target
            memory.append(_resident_bytes(server))
            share = 100 * memory[-1] / memory[0]
            print_row((str(done), number(rate, 0), number(memory[-1] / _MB), number(share)))
        connections.close()
        problems = total.problem_summary() + check_capacity(server, speech, limit)
    # Memory goes up and down because malloc keeps some of it for a while. A leak raises the lowest samples.
    growth = min(memory[-_COMPARED_SAMPLES:]) / min(memory[:_COMPARED_SAMPLES])
    print(
        f"\nMemory growth, lowest of the last {_COMPARED_SAMPLES} samples to the lowest of the first "
        f"{_COMPARED_SAMPLES}: {100 * (growth - 1):.1f}%."
    )
    print(f"Detections: {total.received} of {total.expected}.")
    if growth > _MAX_GROWTH:
        problems.append(f"memory grew by {100 * (growth - 1):.1f}%")
    if not total.expected and options.cancel_every > 1:
        problems.append(
            "the model detects no keyword in the clips, so nothing was checked: use longer ones (--clip-ms)"
        )
    return problems


def _clips(
    speech: Speech, model: SpotterModel, chunk_count: int, cancel_every: int
) -> Iterator[FullSpeedStream]:
    """Yield calls endlessly: clips from various positions; every `cancel_every`-th is cancelled midway."""
    audio = [prefixed(message) for message in speech.audio_messages()]
    config, chunks = prefixed(speech.config_message()), len(audio)
    clips = []
    for position in range(_START_POSITIONS):
        first = position * chunks // _START_POSITIONS
        sent = [config, *(audio[(first + i) % chunks] for i in range(chunk_count))]
        clips.append((sent, frozenset(speech.expected_detections(model, first, chunk_count))))
    for i in itertools.count():
        sent, expected_ids = clips[i % len(clips)]
        yield FullSpeedStream(sent, expected_ids, cancelled=i % cancel_every == 0)


def check_capacity(server: ServerProcess, speech: Speech, limit: int) -> list[str]:
    """Check that the server admits exactly `limit` streams; return the problems."""
    connections = _connect(server, limit + 1)
    deadline_s = time.monotonic() + RELEASE_TIMEOUT_S
    streams: list[_OpenStream] = []
    config = prefixed(speech.config_message())
    # The server may need a moment to release the streams that were cancelled last.
    while len(streams) < limit and time.monotonic() < deadline_s:
        streams += [_OpenStream(connections[i], config) for i in range(limit - len(streams))]
        connections.wait(0.1)
        streams = [stream for stream in streams if stream.status is None]
    _wait(connections, lambda: all(stream.admitted or stream.status for stream in streams))
    admitted = sum(stream.admitted and stream.status is None for stream in streams)
    problems = (
        []
        if admitted == limit
        else [f"the server admits {admitted} streams afterwards, but the limit is {limit}"]
    )
    one_more = _OpenStream(connections[limit], config)
    if not _wait(connections, lambda: one_more.status):
        problems.append(f"the server admits more than {limit} streams")
    connections.close()
    return problems


class _OpenStream:
    """A stream that has sent its config, and stays open."""

    def __init__(self, connection: Connection, config: bytes) -> None:
        self.admitted = False
        self.status: GrpcStatus | None = None
        connection.send(connection.call(self), config)

    def on_sent(self) -> None:
        """Do nothing: this stream is not timed."""

    def on_message(self, _: bytes) -> None:
        """Record that the server admitted the stream."""
        self.admitted = True

    def on_end(self, status: GrpcStatus) -> None:
        """Record that the stream has ended."""
        self.status = status


def _connect(server: ServerProcess, stream_count: int) -> Connections:
    return Connections(server.address, METHOD, math.ceil(stream_count / STREAMS_PER_CONNECTION))


def _wait(connections: Connections, until: Callable[[], object]) -> bool:
    deadline_s = time.monotonic() + RELEASE_TIMEOUT_S
    while not until() and time.monotonic() < deadline_s:
        connections.wait(0.1)
    return bool(until())


def _resident_bytes(server: ServerProcess) -> int:
    size = resident_bytes(server.pid)
    if size is None:
        raise BenchmarkError("Memory cannot be measured on this system: use Linux.")
    return size


if __name__ == "__main__":
    sys.exit(main())
