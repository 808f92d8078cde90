"""Real-time streams of real speech with known answers, and what a server makes of them."""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from earmark_client import SyncClient

from benchmarks.loadgen.generators import generators
from benchmarks.loadgen.load import Load, Outcome, StreamPlan
from benchmarks.loadgen.server_process import cpu_s, machine_cpu_s, resident_bytes
from benchmarks.loadgen.speech import BenchmarkError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from earmark_spotter import SpotterModel

    from benchmarks.loadgen.server_process import ServerProcess
    from benchmarks.loadgen.speech import Speech

STREAMS_PER_GENERATOR = 500

# Streams begin at that many places of the recording, so that they do not all hear a word at once.
_PLACES = 16
_START_GAP_S = 0.01
_GOLDEN_RATIO = (1 + math.sqrt(5)) / 2
_WARM_UP_S = 2.0


@dataclass(frozen=True, slots=True)
class Workload:
    """Streams that say the same in other places, each `chunk_count` chunks long."""

    speech: Speech
    model: SpotterModel
    chunk_count: int
    generator_count: int | None = None
    """Load generator processes; without one, as many as the streams need, and at most one a core."""
    _answers: dict[int, dict[str, int]] = field(default_factory=dict)  # by the chunk that is first

    @property
    def seconds(self) -> float:
        """How long one stream is, in audio and in time."""
        return self.chunk_count * self.speech.chunk_s

    def plans(
        self, stream_count: int, *, after_s: float = 0, within_s: float | None = None
    ) -> list[StreamPlan]:
        """Spread the streams over the recording, and their chunks over time.

        They start from `after_s` on, one after the other; all of them `within_s`, if that is given.
        """
        chunks = len(self.speech.chunks)
        first_chunks = [place * chunks // _PLACES for place in range(min(_PLACES, stream_count))]
        for first in first_chunks:
            if first not in self._answers:
                self._answers[first] = self.speech.answers(self.model, first, self.chunk_count)
        # All of them are open for the last three quarters of the time.
        gap_s = within_s / stream_count if within_s else min(_START_GAP_S, self.seconds / 4 / stream_count)
        plans = []
        for i in range(stream_count):
            first = first_chunks[i % len(first_chunks)]
            # Multiples of the golden ratio fill the time between two chunks evenly, for any count.
            start_s = after_s + i * gap_s + i * _GOLDEN_RATIO % 1 * self.speech.chunk_s
            plans.append(StreamPlan(start_s, first, self._answers[first]))
        return plans

    def loads(self, plans: Sequence[StreamPlan], address: str) -> list[Load]:
        """Divide the streams among generator processes."""
        wanted = math.ceil(len(plans) / STREAMS_PER_GENERATOR)
        count = min(self.generator_count or min(wanted, os.cpu_count() or 1), len(plans))
        speech = self.speech
        config, requests = speech.config(), speech.requests()
        return [
            Load(address, config, requests, speech.chunk_s, self.chunk_count, plans[i::count])
            for i in range(count)
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

    def run(self, stream_count: int, server: ServerProcess, base_bytes: int | None = None) -> Measured:
        """Load a server with that many streams; `base_bytes` is its memory before, if of interest."""
        return play(self.loads(self.plans(stream_count), server.address), server, self.seconds, base_bytes)


def play(
    loads: Sequence[Load], server: ServerProcess, seconds: float, base_bytes: int | None = None
) -> Measured:
    """Load a server, and wait for the end, which comes after so many seconds if all goes well."""
    with generators(loads) as ready:
        before = (cpu_s(server.pid), machine_cpu_s())
        begin_s = ready.begin()
        time.sleep(max(0.0, begin_s + 0.9 * seconds - time.monotonic()))
        loaded_bytes = resident_bytes(server.pid)
        outcomes = ready.finish(seconds)
        passed_s = time.monotonic() - begin_s
        after = (cpu_s(server.pid), machine_cpu_s())
    server_s, machine_s = (
        None if earlier is None or later is None else later - earlier
        for earlier, later in zip(before, after, strict=True)
    )
    grown = None if base_bytes is None or loaded_bytes is None else loaded_bytes - base_bytes
    return Measured(sum(len(load.plans) for load in loads), passed_s, server_s, machine_s, grown, outcomes)


@dataclass(frozen=True)
class Measured:
    """What a load cost, and what came of it. None is what cannot be known here."""

    streams: int
    """Those that were wanted."""
    passed_s: float
    """From the begin to the end of the load."""
    server_cpu_s: float | None
    machine_cpu_s: float | None
    """CPU time of everything on this machine."""
    grown_bytes: int | None
    outcomes: list[Outcome]
    """Of each generator process."""

    @cached_property
    def outcome(self) -> Outcome:
        """That of all of them together."""
        return Outcome.sum(self.outcomes)

    @property
    def server_ms(self) -> float | None:
        """The server's CPU time for a second of a stream, in ms."""
        return self._per_stream_s(self.server_cpu_s)

    @property
    def generator_ms(self) -> float | None:
        """The same of the load generators."""
        return self._per_stream_s(self.outcome.cpu_s)

    def _per_stream_s(self, used_s: float | None) -> float | None:
        stream_s = self.outcome.stream_s
        return None if used_s is None or not stream_s else 1000 * used_s / stream_s

    @property
    def busy_percent(self) -> float | None:
        """How busy all cores of this machine were with anything."""
        cores = os.cpu_count() or 1
        return None if self.machine_cpu_s is None else 100 * self.machine_cpu_s / (self.passed_s * cores)

    @property
    def problems(self) -> list[str]:
        """What went wrong, if anything."""
        found = self.outcome.told_problems()
        if not self.outcome.expected:
            found.append(
                "the model hears no keyword in what was streamed, so nothing was checked: "
                "stream for longer (--seconds), or another --recording"
            )
        return found
