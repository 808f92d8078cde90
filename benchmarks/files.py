"""Send recordings as fast as the server takes them, and print how many times faster than real time that is.

    python -m benchmarks.files [--seconds 600] [--recordings 200] [--recording-seconds 60] [--at-once 16]

First one recording, to a server on one core, with this command on the others; then an archive, many
recordings at once, to a server with a worker for each core. Each by StreamingSpot and by Spot.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from earmark.v1 import keyword_spotting_pb2 as messages
from earmark.v1 import keyword_spotting_service_pb2 as rpcs
from earmark_spotter import SpotterModel

from benchmarks.loadgen import arguments
from benchmarks.loadgen.full_speed_calls import FastCall, SpotCall, run_calls
from benchmarks.loadgen.http2_connections import Connections
from benchmarks.loadgen.http2_frames import prefixed
from benchmarks.loadgen.load_client import METHOD
from benchmarks.loadgen.server_process import ServerProcess, cpu_s, serving
from benchmarks.loadgen.speech import Speech
from benchmarks.loadgen.table import number, print_head, print_row
from benchmarks.loadgen.workload import Workload

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

COLUMNS = (
    "",
    "RPC",
    "at once",
    "server's cores",
    "audio, s",
    "time, s",
    "times real time",
    "server CPU, ms per s of audio",
    "detections, got / expected",
)

_SPOT = "/earmark.v1.KeywordSpottingService/Spot"
# The server's limits for one recording are 300 s and 16 MB.
_LONGEST_SPOT_S = 120


@dataclass(frozen=True)
class _Recording:
    """What is sent: the speech from its beginning, for so many chunks."""

    speech: Speech
    chunk_count: int
    answers: frozenset[str]

    @classmethod
    def make(cls, speech: Speech, model: SpotterModel, seconds: float) -> _Recording:
        count = max(1, round(seconds / speech.chunk_s))
        return cls(speech, count, frozenset(speech.answers(model, 0, count)))

    @property
    def seconds(self) -> float:
        return self.chunk_count * self.speech.chunk_s

    def streamed(self, times: int) -> Iterator[FastCall]:
        requests = [prefixed(request) for request in self.speech.requests()]
        chunks = [requests[i % len(requests)] for i in range(self.chunk_count)]
        sent = [prefixed(self.speech.config()), *chunks]
        return (FastCall(sent, self.answers) for _ in range(times))

    def spotted(self, times: int) -> Iterator[FastCall]:
        chunks = self.speech.chunks
        audio = b"".join(chunks[i % len(chunks)] for i in range(self.chunk_count))
        audio_format = messages.AudioFormat(
            encoding=messages.ENCODING_LINEAR16, sample_rate_hertz=self.speech.sample_rate_hz
        )
        sent = [prefixed(rpcs.SpotRequest(audio_format=audio_format, audio=audio).SerializeToString())]
        return (SpotCall(sent, self.answers) for _ in range(times))


def main(given: Sequence[str] | None = None) -> int:
    parser = arguments.parser("files", "Send recordings as fast as the server takes them.")
    parser.add_argument(
        "--seconds", type=arguments.seconds, default=600.0, help="length of the one recording (default: 600)"
    )
    parser.add_argument(
        "--recordings", type=arguments.count, default=200, help="recordings in the archive (default: 200)"
    )
    parser.add_argument(
        "--recording-seconds",
        type=arguments.seconds,
        default=60.0,
        help="length of each of them (default: 60)",
    )
    parser.add_argument(
        "--at-once", type=arguments.count, default=16, help="calls and connections at once (default: 16)"
    )
    parser.add_argument(
        "--workers",
        type=arguments.count,
        default=os.cpu_count() or 1,
        help="the server's workers for the archive (default: one for each core)",
    )
    arguments.add_chunk_ms(parser, 1000)
    options = parser.parse_args(given)
    return arguments.run("files", lambda: _measure(options))


def _measure(options: argparse.Namespace) -> list[str]:
    speech = Speech.read(options.recording, options.chunk_ms)
    model = SpotterModel.load(options.model)
    about = f"{options.recording.name} in messages of {options.chunk_ms} ms"
    print_head(f"{model.metadata.name} {model.metadata.version}, {about}", COLUMNS)
    problems = []
    one = _Recording.make(speech, model, options.seconds)
    short = _Recording.make(speech, model, min(options.seconds, _LONGEST_SPOT_S))
    many = _Recording.make(speech, model, options.recording_seconds)
    warm_up = Workload(speech, model, 1).warm_up
    cores = sorted(os.sched_getaffinity(0))
    with _on(cores[1:]), serving(options.model, 2, "--workers", "1", core=cores[0]) as server:
        warm_up(server.address)
        for rpc, recording in (("StreamingSpot", one), ("Spot", short)):
            problems += _send(server, "one recording", rpc, recording)
    at_once, count = options.at_once, options.recordings
    limits = ("--max-calls", str(at_once), "--workers", str(options.workers))
    with serving(options.model, at_once + 1, *limits) as server:
        warm_up(server.address)
        for rpc in ("StreamingSpot", "Spot"):
            name = f"{count} recordings"
            problems += _send(server, name, rpc, many, count=count, at_once=at_once, cores=len(cores))
    return problems


@contextlib.contextmanager
def _on(cores: Sequence[int]) -> Iterator[None]:
    """Run this process on some cores only, for a block; on all if there are none."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores or before)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _send(
    server: ServerProcess,
    name: str,
    rpc: str,
    recording: _Recording,
    *,
    count: int = 1,
    at_once: int = 1,
    cores: int = 1,
) -> list[str]:
    """Send a recording so often, print the line, and return the problems."""
    streams = rpc == "StreamingSpot"
    connections = Connections(server.address, METHOD if streams else _SPOT, at_once)
    calls = recording.streamed(count) if streams else recording.spotted(count)
    cpu_before_s, begun_s = cpu_s(server.pid), time.monotonic()
    outcome = run_calls(connections, calls, at_once)
    passed_s, cpu_after_s = time.monotonic() - begun_s, cpu_s(server.pid)
    connections.close()
    audio_s = count * recording.seconds
    used_s = None if cpu_before_s is None or cpu_after_s is None else cpu_after_s - cpu_before_s
    print_row(
        (
            name,
            rpc,
            str(at_once),
            str(cores),
            number(audio_s, 0),
            number(passed_s, 2),
            number(audio_s / passed_s, 0),
            number(None if used_s is None else 1000 * used_s / audio_s, 2),
            f"{outcome.got} / {outcome.expected}",
        )
    )
    problems = outcome.told_problems()
    if not outcome.expected:
        problems.append("the model hears no keyword in the recording, so nothing was checked")
    return [f"{name}, {rpc}: {problem}" for problem in problems]


if __name__ == "__main__":
    sys.exit(main())
