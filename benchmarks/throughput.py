"""Send recordings at full speed, and print the throughput as a multiple of real time.

    python -m benchmarks.throughput [--seconds 600] [--recordings 200] [--recording-seconds 60] [--at-once 16]

First one recording, to a server on one core, while this command uses the other cores. Then an archive: many
concurrent recordings, to a server with one worker per core. Both by StreamingSpot and by Spot.
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
from benchmarks.loadgen.full_speed_calls import FullSpeedSpot, FullSpeedStream, run_calls
from benchmarks.loadgen.http2_connections import Connections
from benchmarks.loadgen.http2_frames import prefixed
from benchmarks.loadgen.load_client import METHOD
from benchmarks.loadgen.server_process import ServerProcess, cpu_s, running_server
from benchmarks.loadgen.speech import Speech
from benchmarks.loadgen.table import number, print_header, print_row
from benchmarks.loadgen.workload import Workload

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

COLUMNS = (
    "",
    "RPC",
    "concurrent calls",
    "server cores",
    "audio, s",
    "time, s",
    "throughput, x real time",
    "server CPU, ms per s of audio",
    "detections, received / expected",
)

_SPOT = "/earmark.v1.KeywordSpottingService/Spot"
# The server's limits for one Spot call are 300 s and 16 MB.
_MAX_SPOT_S = 120


@dataclass(frozen=True)
class _Recording:
    """The input of a call: the first `chunk_count` chunks of the speech, in a loop."""

    speech: Speech
    chunk_count: int
    expected_ids: frozenset[str]

    @classmethod
    def make(cls, speech: Speech, model: SpotterModel, seconds: float) -> _Recording:
        count = max(1, round(seconds / speech.chunk_s))
        return cls(speech, count, frozenset(speech.expected_detections(model, 0, count)))

    @property
    def seconds(self) -> float:
        return self.chunk_count * self.speech.chunk_s

    def streaming_calls(self, count: int) -> Iterator[FullSpeedStream]:
        audio = [prefixed(message) for message in self.speech.audio_messages()]
        chunks = [audio[i % len(audio)] for i in range(self.chunk_count)]
        sent = [prefixed(self.speech.config_message()), *chunks]
        return (FullSpeedStream(sent, self.expected_ids) for _ in range(count))

    def spot_calls(self, count: int) -> Iterator[FullSpeedStream]:
        chunks = self.speech.chunks
        audio = b"".join(chunks[i % len(chunks)] for i in range(self.chunk_count))
        audio_format = messages.AudioFormat(
            encoding=messages.ENCODING_LINEAR16, sample_rate_hertz=self.speech.sample_rate_hz
        )
        sent = [prefixed(rpcs.SpotRequest(audio_format=audio_format, audio=audio).SerializeToString())]
        return (FullSpeedSpot(sent, self.expected_ids) for _ in range(count))


def main(argv: Sequence[str] | None = None) -> int:
    parser = arguments.make_parser("throughput", "Send recordings at full speed and print the throughput.")
    parser.add_argument(
        "--seconds",
        type=arguments.seconds,
        default=600.0,
        help="length of the single recording (default: 600)",
    )
    parser.add_argument(
        "--recordings", type=arguments.count, default=200, help="recordings in the archive (default: 200)"
    )
    parser.add_argument(
        "--recording-seconds",
        type=arguments.seconds,
        default=60.0,
        help="length of each recording in the archive (default: 60)",
    )
    parser.add_argument(
        "--at-once", type=arguments.count, default=16, help="concurrent calls and connections (default: 16)"
    )
    parser.add_argument(
        "--workers",
        type=arguments.count,
        default=os.cpu_count() or 1,
        help="the number of server workers for the archive (default: one per core)",
    )
    arguments.add_chunk_ms(parser, 1000)
    options = parser.parse_args(argv)
    return arguments.run("throughput", lambda: _measure(options))


def _measure(options: argparse.Namespace) -> list[str]:
    speech = Speech.read(options.recording, options.chunk_ms)
    model = SpotterModel.load(options.model)
    description = f"{options.recording.name} in messages of {options.chunk_ms} ms"
    print_header(f"{model.metadata.name} {model.metadata.version}, {description}", COLUMNS)
    problems = []
    long = _Recording.make(speech, model, options.seconds)
    short = _Recording.make(speech, model, min(options.seconds, _MAX_SPOT_S))
    archived = _Recording.make(speech, model, options.recording_seconds)
    warm_up = Workload(speech, model, 1).warm_up
    cores = sorted(os.sched_getaffinity(0))
    with (
        _pinned_to(cores[1:]),
        running_server(options.model, 2, "--workers", "1", core=cores[0]) as server,
    ):
        warm_up(server.address)
        for rpc, recording in (("StreamingSpot", long), ("Spot", short)):
            problems += _send(server, "one recording", rpc, recording)
    concurrency, count = options.at_once, options.recordings
    limits = ("--max-calls", str(concurrency), "--max-calls-per-client=0", "--workers", str(options.workers))
    with running_server(options.model, concurrency + 1, *limits) as server:
        warm_up(server.address)
        for rpc in ("StreamingSpot", "Spot"):
            name = f"{count} recordings"
            problems += _send(
                server, name, rpc, archived, count=count, concurrency=concurrency, cores=len(cores)
            )
    return problems


@contextlib.contextmanager
def _pinned_to(cores: Sequence[int]) -> Iterator[None]:
    """Restrict this process to some cores while the block runs; do nothing if `cores` is empty."""
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
    concurrency: int = 1,
    cores: int = 1,
) -> list[str]:
    """Send a recording `count` times, print the row, and return the problems."""
    is_streaming = rpc == "StreamingSpot"
    connections = Connections(server.address, METHOD if is_streaming else _SPOT, concurrency)
    calls = recording.streaming_calls(count) if is_streaming else recording.spot_calls(count)
    cpu_before_s, begin_s = cpu_s(server.pid), time.monotonic()
    outcome = run_calls(connections, calls, concurrency)
    elapsed_s, cpu_after_s = time.monotonic() - begin_s, cpu_s(server.pid)
    connections.close()
    audio_s = count * recording.seconds
    used_s = None if cpu_before_s is None or cpu_after_s is None else cpu_after_s - cpu_before_s
    print_row(
        (
            name,
            rpc,
            str(concurrency),
            str(cores),
            number(audio_s, 0),
            number(elapsed_s, 2),
            number(audio_s / elapsed_s, 0),
            number(None if used_s is None else 1000 * used_s / audio_s, 2),
            f"{outcome.received} / {outcome.expected}",
        )
    )
    problems = outcome.problem_summary()
    if not outcome.expected:
        problems.append("the model detects no keyword in the recording, so nothing was checked")
    return [f"{name}, {rpc}: {problem}" for problem in problems]


if __name__ == "__main__":
    sys.exit(main())
