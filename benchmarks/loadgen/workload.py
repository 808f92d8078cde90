"""Real-time streams of speech with known detections, and the measurement of a server under that load."""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from earmark_client import SyncClient

from benchmarks.loadgen.errors import BenchmarkError
from benchmarks.loadgen.generators import connected_generators
from benchmarks.loadgen.load import Load, Outcome, StreamPlan
from benchmarks.loadgen.server_process import cpu_s, machine_cpu_s, resident_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from earmark_spotter import SpotterModel

    from benchmarks.loadgen.server_process import ServerProcess
    from benchmarks.loadgen.speech import Speech

STREAMS_PER_GENERATOR = 500

# Streams start at this many positions of the recording, so that they do not all send a keyword at once.
_START_POSITIONS = 16
_START_GAP_S = 0.01
_GOLDEN_RATIO = (1 + math.sqrt(5)) / 2
_WARM_UP_S = 2.0


@dataclass(frozen=True, slots=True)
class Workload:
    """Streams of the same recording from different positions on, each `chunk_count` chunks long."""

    speech: Speech
    model: SpotterModel
    chunk_count: int
    generator_count: int | None = None
    """The number of generator processes; None: as many as the streams need, at most one per core."""
    _expected: dict[int, dict[str, int]] = field(default_factory=dict)  # a cache, by the first chunk

    @property
    def seconds(self) -> float:
        """The length of one stream."""
        return self.chunk_count * self.speech.chunk_s

    def plans(
        self, stream_count: int, *, after_s: float = 0, within_s: float | None = None
    ) -> list[StreamPlan]:
        """Return plans that spread the streams over the recording, and their chunks over time.

        The streams start one after the other, from `after_s` on, all of them within `within_s` if given.
        """
        chunks = len(self.speech.chunks)
        positions = min(_START_POSITIONS, stream_count)
        first_chunks = [position * chunks // _START_POSITIONS for position in range(positions)]
        for first in first_chunks:
            if first not in self._expected:
                self._expected[first] = self.speech.expected_detections(self.model, first, self.chunk_count)
        # All streams are open for at least the last three quarters of the time.
        gap_s = within_s / stream_count if within_s else min(_START_GAP_S, self.seconds / 4 / stream_count)
        plans = []
        for i in range(stream_count):
            first = first_chunks[i % len(first_chunks)]
            # Multiples of the golden ratio spread the streams evenly over one chunk's time, for any count.
            start_s = after_s + i * gap_s + i * _GOLDEN_RATIO % 1 * self.speech.chunk_s
            plans.append(StreamPlan(start_s, first, self._expected[first]))
        return plans

    def loads(self, plans: Sequence[StreamPlan], address: str) -> list[Load]:
        """Divide the streams among generator processes."""
        needed = math.ceil(len(plans) / STREAMS_PER_GENERATOR)
        count = min(self.generator_count or min(needed, os.cpu_count() or 1), len(plans))
        speech = self.speech
        config, audio = speech.config_message(), speech.messages_by_chunk()
        return [
            Load(address, config, audio, speech.chunk_s, self.chunk_count, plans[i::count])
            for i in range(count)
        ]

    def warm_up(self, address: str) -> None:
        """Check that the server runs this workload's model, and run one short stream."""
        with SyncClient(address) as client:
            served = client.get_model()
            if served.sha256 != self.model.sha256:
                raise BenchmarkError(
                    f"The server's model is {served.name} {served.version} ({served.sha256[:12]}), but the "
                    "expected detections are those of "
                    f"{self.model.metadata.name} {self.model.metadata.version} "
                    f"({self.model.sha256[:12]}): name the server's model file with --model."
                )
            audio = self.speech.chunks[: math.ceil(_WARM_UP_S / self.speech.chunk_s)]
            for _ in client.stream(audio, sample_rate_hz=self.speech.sample_rate_hz):
                pass

    def run(self, stream_count: int, server: ServerProcess, base_bytes: int | None = None) -> Measurement:
        """Run this many streams; `base_bytes` is the server's memory before, if memory is of interest."""
        return run_loads(
            self.loads(self.plans(stream_count), server.address), server, self.seconds, base_bytes
        )

    def run_empty(self, stream_count: int, server: ServerProcess) -> Measurement:
        """Run this many streams on a server that detects nothing."""
        plans = [replace(plan, expected={}) for plan in self.plans(stream_count)]
        return run_loads(self.loads(plans, server.address), server, self.seconds)


def run_loads(
    loads: Sequence[Load], server: ServerProcess, seconds: float, base_bytes: int | None = None
) -> Measurement:
    """Run the loads to their end; `seconds` is the length of the longest."""
    with connected_generators(loads) as generators:
        before = (cpu_s(server.pid), machine_cpu_s())
        begin_s = generators.start()
        time.sleep(max(0.0, begin_s + 0.9 * seconds - time.monotonic()))
        loaded_bytes = resident_bytes(server.pid)
        outcomes = generators.wait(seconds)
        elapsed_s = time.monotonic() - begin_s
        after = (cpu_s(server.pid), machine_cpu_s())
    server_s, machine_s = (
        None if earlier is None or later is None else later - earlier
        for earlier, later in zip(before, after, strict=True)
    )
    grown = None if base_bytes is None or loaded_bytes is None else loaded_bytes - base_bytes
    return Measurement(
        sum(len(load.plans) for load in loads), elapsed_s, server_s, machine_s, grown, outcomes
    )


@dataclass(frozen=True)
class Measurement:
    """The cost and the outcome of a load. None stands for what is unknown on this machine."""

    streams: int
    """The number of streams in the plans, including rejected ones."""
    elapsed_s: float
    """From the start to the end of the load."""
    server_cpu_s: float | None
    machine_cpu_s: float | None
    """The CPU time of all processes on this machine."""
    grown_bytes: int | None
    """The growth of the server's memory under load."""
    outcomes: list[Outcome]
    """One per generator process."""

    @cached_property
    def outcome(self) -> Outcome:
        """The sum of all outcomes."""
        return Outcome.sum(self.outcomes)

    @property
    def server_ms(self) -> float | None:
        """The server's CPU time per stream-second, in ms."""
        return self._per_stream_s(self.server_cpu_s)

    @property
    def generator_ms(self) -> float | None:
        """The load generators' CPU time per stream-second, in ms."""
        return self._per_stream_s(self.outcome.cpu_s)

    def _per_stream_s(self, used_s: float | None) -> float | None:
        stream_s = self.outcome.stream_s
        return None if used_s is None or not stream_s else 1000 * used_s / stream_s

    @property
    def machine_percent(self) -> float | None:
        """The CPU utilization of this machine, of all cores and all processes."""
        cores = os.cpu_count() or 1
        return None if self.machine_cpu_s is None else 100 * self.machine_cpu_s / (self.elapsed_s * cores)

    @property
    def problems(self) -> list[str]:
        """The problems of all streams; empty if there were none."""
        problems = self.outcome.problem_summary()
        if not self.outcome.expected:
            problems.append(
                "the model detects no keyword in the audio, so nothing was checked: "
                "use longer streams (--seconds), or another --recording"
            )
        return problems
