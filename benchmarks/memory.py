"""Measure what open streams take of the server's memory, and what is left of many that came and went.

    python -m benchmarks.memory [--open 100,1000] [--soak 100000] [--at-once 200] [--clip-ms 500]
                                [--cancel-every 3]

First, streams that speak in real time: memory over that before, for each. Then, many hours' worth of streams
that are opened, say a clip at full speed and are closed, every third of them by a cancellation midway; with
`--cancel-every 1` all of them. The first of them warm the server up; from there on, memory is printed ten
times. Exits with 1 when the lowest of the last three is more than 5% above the lowest of the first three,
when a detection was lost or came that should not have, or when the server afterwards does not have room for
exactly as many streams as it had at first.
"""

from __future__ import annotations

import itertools
import math
import sys
import time
from typing import TYPE_CHECKING

from earmark_spotter import SpotterModel

from benchmarks.loadgen import arguments
from benchmarks.loadgen.full_speed_calls import FastCall, run_calls
from benchmarks.loadgen.http2_connections import Connections
from benchmarks.loadgen.http2_frames import prefixed
from benchmarks.loadgen.load import Outcome
from benchmarks.loadgen.load_client import METHOD, STREAMS_PER_CONNECTION
from benchmarks.loadgen.server_process import ServerProcess, resident_bytes, serving
from benchmarks.loadgen.speech import BenchmarkError, Speech
from benchmarks.loadgen.table import number, print_head, print_row
from benchmarks.loadgen.workload import Workload

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Sequence

    from benchmarks.loadgen.http2_client import Connection
    from benchmarks.loadgen.http2_frames import Ending

_CHUNK_MS = 100
_PLACES = 16
_ROUNDS = 10
_WARM_UP_SHARE = 0.15
_GROWTH = 1.05
_LOOKS = 3
RELEASE_TIMEOUT_S = 10
_MB = 1 << 20


def main(given: Sequence[str] | None = None) -> int:
    parser = arguments.parser(
        "memory", "Measure what streams take of the server's memory, and what they leave."
    )
    parser.add_argument(
        "--open",
        type=arguments.counts,
        default=[100, 1000],
        metavar="N,...",
        help="how many streams are open at once (default: 100,1000)",
    )
    parser.add_argument(
        "--seconds", type=arguments.seconds, default=8.0, help="how long they are open (default: 8)"
    )
    parser.add_argument(
        "--soak",
        type=arguments.count,
        default=100_000,
        metavar="N",
        help="streams that come and go (default: 100000)",
    )
    parser.add_argument(
        "--at-once", type=arguments.count, default=200, help="of those, streams at once (default: 200)"
    )
    parser.add_argument(
        "--clip-ms", type=arguments.count, default=500, help="what each of them says, in ms (default: 500)"
    )
    parser.add_argument(
        "--cancel-every",
        type=arguments.count,
        default=3,
        metavar="N",
        help="cancel every N-th of them midway; 1: all (default: 3)",
    )
    options = parser.parse_args(given)
    return arguments.run("memory", lambda: _measure(options))


def _measure(options: argparse.Namespace) -> list[str]:
    speech = Speech.read(options.recording, _CHUNK_MS)
    model = SpotterModel.load(options.model)
    about = f"{model.metadata.name} {model.metadata.version}, {options.recording.name}"
    print_head(about, ("open streams", "memory before, MB", "memory with them, MB", "KB per stream"))
    problems = []
    for count in options.open:
        problems += _hold(count, speech, model, options)
    return problems + _soak(speech, model, options)


def _hold(count: int, speech: Speech, model: SpotterModel, options: argparse.Namespace) -> list[str]:
    """Measure streams that are open and listened to, and print the line."""
    workload = Workload(speech, model, max(1, round(options.seconds / speech.chunk_s)))
    with serving(options.model, count + 1) as server:
        workload.warm_up(server.address)
        before = _memory(server)
        measured = workload.run(count, server, before)
    grown = measured.grown_bytes or 0
    print_row(
        (str(count), number(before / _MB), number((before + grown) / _MB), number(grown / 1024 / count, 0))
    )
    return [f"{count} open streams: {problem}" for problem in measured.problems]


def _soak(speech: Speech, model: SpotterModel, options: argparse.Namespace) -> list[str]:
    """Let streams come and go, and print a line now and then."""
    chunk_count = max(1, round(options.clip_ms / _CHUNK_MS))
    clips = _clips(speech, model, chunk_count, options.cancel_every)
    # What is cancelled is gone a moment later than the next one comes.
    limit = 2 * options.at_once
    warm_up = min(max(round(_WARM_UP_SHARE * options.soak), 10 * options.at_once), options.soak // 2)
    total = Outcome()
    print()
    print_row(("streams so far", "a second", "memory, MB", "of that at first, %"))
    print_row(["---:"] * 4)
    # Whether there is time to listen to all of them is no matter here.
    with serving(options.model, limit, "--max-load", "1", "--max-lag-s", "60") as server:
        Workload(speech, model, 1).warm_up(server.address)
        connections = _connect(server, options.at_once)
        done = 0
        memory: list[int] = []
        for part in range(_ROUNDS + 1):
            upto = warm_up + round((options.soak - warm_up) * part / _ROUNDS)
            begun_s = time.monotonic()
            total.add(run_calls(connections, itertools.islice(clips, upto - done), options.at_once))
            rate, done = (upto - done) / (time.monotonic() - begun_s), upto
            memory.append(_memory(server))
            share = 100 * memory[-1] / memory[0]
            print_row((str(done), number(rate, 0), number(memory[-1] / _MB), number(share)))
        connections.close()
        problems = total.told_problems() + check_room(server, speech, limit)
    # It goes up and down as malloc keeps and gives back: what is kept for good shows where it is lowest.
    growth = min(memory[-_LOOKS:]) / min(memory[:_LOOKS])
    print(f"\nMemory at its lowest, the last {_LOOKS} times to the first {_LOOKS}: {100 * growth:.1f}%.")
    print(f"Detections: {total.got} of {total.expected}.")
    if growth > _GROWTH:
        problems.append(f"memory grew by {100 * (growth - 1):.1f}%")
    if not total.expected and options.cancel_every > 1:
        problems.append("the model hears no keyword in the clips, so nothing was checked: use longer ones")
    return problems


def _clips(speech: Speech, model: SpotterModel, chunk_count: int, cancel_every: int) -> Iterator[FastCall]:
    """Make calls without end: clips from many places, every so manieth of them cancelled midway."""
    requests = [prefixed(request) for request in speech.requests()]
    config, chunks = prefixed(speech.config()), len(requests)
    clips = []
    for place in range(_PLACES):
        first = place * chunks // _PLACES
        sent = [config, *(requests[(first + i) % chunks] for i in range(chunk_count))]
        clips.append((sent, frozenset(speech.answers(model, first, chunk_count))))
    for i in itertools.count():
        sent, answers = clips[i % len(clips)]
        yield FastCall(sent, answers, cancelled=i % cancel_every == 0)


def check_room(server: ServerProcess, speech: Speech, limit: int) -> list[str]:
    """See whether the server takes as many streams as it is allowed to, and not one more."""
    connections = _connect(server, limit + 1)
    give_up_s = time.monotonic() + RELEASE_TIMEOUT_S
    streams: list[_OpenStream] = []
    config = prefixed(speech.config())
    # What was cancelled last may take a moment to go.
    while len(streams) < limit and time.monotonic() < give_up_s:
        streams += [_OpenStream(connections[i], config) for i in range(limit - len(streams))]
        connections.wait(0.1)
        streams = [stream for stream in streams if stream.ending is None]
    _wait(connections, lambda: all(stream.answered or stream.ending for stream in streams))
    room = sum(stream.answered and stream.ending is None for stream in streams)
    problems = (
        [] if room == limit else [f"afterwards it has room for {room} streams, but it should for {limit}"]
    )
    one_more = _OpenStream(connections[limit], config)
    if not _wait(connections, lambda: one_more.ending):
        problems.append(f"it lets in more than {limit} streams")
    connections.close()
    return problems


class _OpenStream:
    """A stream that has sent its config, and stays open."""

    def __init__(self, connection: Connection, config: bytes) -> None:
        self.answered = False
        self.ending: Ending | None = None
        connection.send(connection.call(self), config)

    def on_sent(self) -> None:
        """Go on."""

    def on_message(self, _: bytes) -> None:
        """Note that it was let in."""
        self.answered = True

    def on_end(self, ending: Ending) -> None:
        """Note that it is no longer open."""
        self.ending = ending


def _connect(server: ServerProcess, stream_count: int) -> Connections:
    return Connections(server.address, METHOD, math.ceil(stream_count / STREAMS_PER_CONNECTION))


def _wait(connections: Connections, until: Callable[[], object]) -> bool:
    give_up_s = time.monotonic() + RELEASE_TIMEOUT_S
    while not until() and time.monotonic() < give_up_s:
        connections.wait(0.1)
    return bool(until())


def _memory(server: ServerProcess) -> int:
    found = resident_bytes(server.pid)
    if found is None:
        raise BenchmarkError("The memory of a process can be read on Linux only.")
    return found


if __name__ == "__main__":
    sys.exit(main())
