"""Measure what one client that sends as fast as it can does to the real-time streams beside it.

    python -m benchmarks.fairness [--streams 200] [--seconds 30]

Prints the delay of the real-time streams' events without it and with it, and how fast it was served.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from typing import TYPE_CHECKING

from earmark_spotter import SpotterModel

from benchmarks.loadgen import arguments
from benchmarks.loadgen.full_speed_calls import FastCall, run_calls
from benchmarks.loadgen.http2_connections import Connections
from benchmarks.loadgen.http2_frames import prefixed
from benchmarks.loadgen.load import Outcome
from benchmarks.loadgen.load_client import METHOD
from benchmarks.loadgen.server_process import serving
from benchmarks.loadgen.speech import Speech
from benchmarks.loadgen.table import number, print_head, print_row, quantile_ms
from benchmarks.loadgen.workload import Workload

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

COLUMNS = (
    "",
    "delay p50, ms",
    "delay p99, ms",
    "delay max, ms",
    "detections, got / expected",
    "sent late p99, ms",
    "machine busy, %",
    "the fast one, times real time",
)


class Greedy:
    """A client that sends one recording after the other as fast as they are taken, on a thread."""

    def __init__(self, address: str, speech: Speech, model: SpotterModel) -> None:
        requests = [prefixed(request) for request in speech.requests()]
        self._sent = [prefixed(speech.config()), *requests]
        self._answers = frozenset(speech.answers(model, 0, len(requests)))
        self._recording_s = len(requests) * speech.chunk_s
        self._connections = Connections(address, METHOD, 1)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.outcome = Outcome()
        self._passed_s = 0.0

    def __enter__(self) -> Greedy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()
        self._connections.close()

    @property
    def speed(self) -> float:
        """How many times faster than real time it was served, once it has ended; 0 if it was not."""
        return self.outcome.streams * self._recording_s / self._passed_s if self._passed_s else 0.0

    def _run(self) -> None:
        begun_s = time.monotonic()
        while not self._stopping.is_set() and not self.outcome.problems:
            self.outcome.add(run_calls(self._connections, [FastCall(self._sent, self._answers)], 1))
        self._passed_s = time.monotonic() - begun_s


def main(given: Sequence[str] | None = None) -> int:
    parser = arguments.parser("fairness", "Measure what one fast client does to real-time streams.")
    parser.add_argument(
        "--streams", type=arguments.count, default=200, help="real-time streams (default: 200)"
    )
    parser.add_argument(
        "--seconds", type=arguments.seconds, default=30.0, help="length of every stream (default: 30)"
    )
    arguments.add_chunk_ms(parser)
    options = parser.parse_args(given)
    return arguments.run("fairness", lambda: _measure(options))


def _measure(options: argparse.Namespace) -> list[str]:
    speech = Speech.read(options.recording, options.chunk_ms)
    model = SpotterModel.load(options.model)
    workload = Workload(speech, model, max(1, round(options.seconds / speech.chunk_s)))
    about = f"{workload.seconds:g} s of {options.recording.name} in chunks of {options.chunk_ms} ms"
    print_head(f"{model.metadata.name} {model.metadata.version}, {about}", COLUMNS)
    problems = []
    for name in ("alone", "beside one that sends as fast as it can"):
        with serving(options.model, options.streams + 2) as server, contextlib.ExitStack() as stack:
            workload.warm_up(server.address)
            greedy = None if name == "alone" else Greedy(server.address, speech, model)
            if greedy:
                stack.enter_context(greedy)
            measured = workload.run(options.streams, server)
            stack.close()
        outcome = measured.outcome
        print_row(
            (
                f"{options.streams} streams {name}",
                *(number(quantile_ms(outcome.delays_s, percent)) for percent in (50, 99, 100)),
                f"{outcome.got} / {outcome.expected}",
                number(quantile_ms(outcome.late_s, 99)),
                number(measured.busy_percent, 0),
                number(greedy.speed if greedy else None, 0),
            )
        )
        problems += [f"{name}: {problem}" for problem in measured.problems]
        problems += [
            f"the fast one: {problem}" for problem in (greedy.outcome.told_problems() if greedy else [])
        ]
    return problems


if __name__ == "__main__":
    sys.exit(main())
