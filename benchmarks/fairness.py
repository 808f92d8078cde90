"""Measure how one client that sends at full speed affects the latency of real-time streams.

    python -m benchmarks.fairness [--streams 200] [--seconds 30]

Prints the latency of the real-time streams without and with that client, and the client's throughput.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from typing import TYPE_CHECKING, Self

from earmark_spotter import SpotterModel

from benchmarks.loadgen import arguments
from benchmarks.loadgen.full_speed_calls import FullSpeedStream, run_calls
from benchmarks.loadgen.http2_connections import Connections
from benchmarks.loadgen.http2_frames import prefixed
from benchmarks.loadgen.load import Outcome
from benchmarks.loadgen.load_client import METHOD
from benchmarks.loadgen.server_process import running_server
from benchmarks.loadgen.speech import Speech
from benchmarks.loadgen.table import number, percentile_ms, print_header, print_row
from benchmarks.loadgen.workload import Workload

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

COLUMNS = (
    "",
    "latency p50, ms",
    "latency p99, ms",
    "latency max, ms",
    "detections, received / expected",
    "send lag p99, ms",
    "machine CPU, %",
    "throughput of the full-speed client, x real time",
)


class FullSpeedClient:
    """A client that sends one recording after the other at full speed, on its own thread."""

    def __init__(self, address: str, speech: Speech, model: SpotterModel) -> None:
        audio = [prefixed(message) for message in speech.audio_messages()]
        self._messages = [prefixed(speech.config_message()), *audio]
        self._expected_ids = frozenset(speech.expected_detections(model, 0, len(audio)))
        self._recording_s = len(audio) * speech.chunk_s
        self._connections = Connections(address, METHOD, 1)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.outcome = Outcome()
        self._elapsed_s = 0.0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()
        self._connections.close()

    @property
    def throughput(self) -> float:
        """The seconds of audio per second, once the client has stopped; 0 if it sent nothing."""
        return self.outcome.streams * self._recording_s / self._elapsed_s if self._elapsed_s else 0.0

    def _run(self) -> None:
        begin_s = time.monotonic()
        while not self._stopping.is_set() and not self.outcome.problems:
            stream = FullSpeedStream(self._messages, self._expected_ids)
            self.outcome.add(run_calls(self._connections, [stream], 1))
        self._elapsed_s = time.monotonic() - begin_s


def main(argv: Sequence[str] | None = None) -> int:
    parser = arguments.make_parser(
        "fairness", "Measure how one full-speed client affects the latency of real-time streams."
    )
    parser.add_argument(
        "--streams", type=arguments.count, default=200, help="real-time streams (default: 200)"
    )
    parser.add_argument(
        "--seconds", type=arguments.seconds, default=30.0, help="length of every stream (default: 30)"
    )
    arguments.add_chunk_ms(parser)
    options = parser.parse_args(argv)
    return arguments.run("fairness", lambda: _measure(options))


def _measure(options: argparse.Namespace) -> list[str]:
    speech = Speech.read(options.recording, options.chunk_ms)
    model = SpotterModel.load(options.model)
    workload = Workload(speech, model, max(1, round(options.seconds / speech.chunk_s)))
    description = f"{workload.seconds:g} s of {options.recording.name} in chunks of {options.chunk_ms} ms"
    print_header(f"{model.metadata.name} {model.metadata.version}, {description}", COLUMNS)
    problems = []
    for name in ("alone", "with a full-speed client"):
        with running_server(options.model, options.streams + 2) as server, contextlib.ExitStack() as stack:
            workload.warm_up(server.address)
            client = None if name == "alone" else FullSpeedClient(server.address, speech, model)
            if client:
                stack.enter_context(client)
            measurement = workload.run(options.streams, server)
            stack.close()
        outcome = measurement.outcome
        print_row(
            (
                f"{options.streams} streams {name}",
                *(number(percentile_ms(outcome.latencies_s, percent)) for percent in (50, 99, 100)),
                f"{outcome.received} / {outcome.expected}",
                number(percentile_ms(outcome.send_lags_s, 99)),
                number(measurement.machine_percent, 0),
                number(client.throughput if client else None, 0),
            )
        )
        problems += [f"{name}: {problem}" for problem in measurement.problems]
        client_problems = client.outcome.problem_summary() if client else []
        problems += [f"the full-speed client: {problem}" for problem in client_problems]
    return problems


if __name__ == "__main__":
    sys.exit(main())
