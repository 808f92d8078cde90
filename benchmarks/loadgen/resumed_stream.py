"""One stream that the client library resumes after faults, with a check of its detections."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from earmark_client import Client, Detection, EarmarkError, Resumed, Started

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from benchmarks.loadgen.speech import Speech

SampleRange = tuple[int, int]
"""The start and the end of a detection, in samples at the recording's rate."""


@dataclass
class ResumedStream:
    """One stream: its audio, the expected detections (in order, by id) and the received ones."""

    speech: Speech
    first_chunk: int
    chunk_count: int
    speed: float
    expected: dict[str, SampleRange]
    received: list[tuple[str, SampleRange]] = field(default_factory=list)
    outages_s: list[float] = field(default_factory=list)
    error: str = ""
    started: asyncio.Event = field(default_factory=asyncio.Event)
    may_send: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, client: Client) -> None:
        """Run the stream to its end, or until it fails."""
        rate_hz = self.speech.sample_rate_hz
        try:
            async for event in client.stream(self._paced_audio(), sample_rate_hz=rate_hz):
                match event:
                    case Started():
                        self.started.set()
                    case Detection():
                        samples = round(event.start_s * rate_hz), round(event.end_s * rate_hz)
                        self.received.append((event.id, samples))
                    case Resumed():
                        self.outages_s.append(event.outage_s)
        except EarmarkError as error:
            self.error = str(error)

    async def _paced_audio(self) -> AsyncIterator[bytes]:
        """Wait for `may_send`, then yield the chunks at `speed` times real time."""
        await self.may_send.wait()
        chunks, chunk_s = self.speech.chunks, self.speech.chunk_s / self.speed
        begin_s = time.monotonic() + random.uniform(0, chunk_s)
        for i in range(self.chunk_count):
            await asyncio.sleep(begin_s + i * chunk_s - time.monotonic())
            yield chunks[(self.first_chunk + i) % len(chunks)]

    @property
    def lost(self) -> int:
        """The number of expected detections that were not received."""
        return len(self.expected.keys() - {detection_id for detection_id, _ in self.received})

    @property
    def repeated(self) -> int:
        """The number of detections that were received again."""
        return sum(count - 1 for count in Counter(detection_id for detection_id, _ in self.received).values())

    @property
    def unexpected(self) -> int:
        """The number of detections with a wrong id or wrong offsets, plus 1 if the order is wrong."""
        first: dict[str, SampleRange] = {}
        for detection_id, samples in self.received:
            first.setdefault(detection_id, samples)
        wrong = sum(self.expected.get(detection_id) != samples for detection_id, samples in first.items())
        in_order = [detection_id for detection_id in self.expected if detection_id in first]
        return wrong + (in_order != [detection_id for detection_id in first if detection_id in self.expected])
