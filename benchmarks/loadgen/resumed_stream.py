"""One stream that is to survive: what it says, what it must bring, and what it brought."""

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

Place = tuple[int, int]
"""Where a detection starts and ends, in samples at the recording's rate."""


@dataclass
class Stream:
    """One stream: what it says, from which chunk on, and what it brought."""

    speech: Speech
    first_chunk: int
    chunk_count: int
    speed: float
    expected: dict[str, Place]
    got: list[tuple[str, Place]] = field(default_factory=list)
    outages_s: list[float] = field(default_factory=list)
    problem: str = ""
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    may_go_on: asyncio.Event = field(default_factory=asyncio.Event)

    async def play(self, client: Client) -> None:
        """Play it to its end, or until it fails."""
        rate_hz = self.speech.sample_rate_hz
        try:
            async for event in client.stream(self._paced(), sample_rate_hz=rate_hz):
                match event:
                    case Started():
                        self.begun.set()
                    case Detection():
                        place = round(event.start_s * rate_hz), round(event.end_s * rate_hz)
                        self.got.append((event.id, place))
                    case Resumed():
                        self.outages_s.append(event.outage_s)
        except EarmarkError as error:
            self.problem = str(error)

    async def _paced(self) -> AsyncIterator[bytes]:
        """Give the chunks at their pace, from when all streams have begun."""
        await self.may_go_on.wait()
        chunks, chunk_s = self.speech.chunks, self.speech.chunk_s / self.speed
        begin_s = time.monotonic() + random.uniform(0, chunk_s)
        for i in range(self.chunk_count):
            await asyncio.sleep(begin_s + i * chunk_s - time.monotonic())
            yield chunks[(self.first_chunk + i) % len(chunks)]

    @property
    def lost(self) -> int:
        """Detections that never came."""
        return len(self.expected.keys() - {name for name, _ in self.got})

    @property
    def repeated(self) -> int:
        """Detections that came again."""
        return sum(count - 1 for count in Counter(name for name, _ in self.got).values())

    @property
    def moved(self) -> int:
        """Detections that came at another place, out of order, or that should not have come."""
        first: dict[str, Place] = {}
        for name, place in self.got:
            first.setdefault(name, place)
        moved = sum(self.expected.get(name) != place for name, place in first.items())
        in_order = [name for name in self.expected if name in first]
        return moved + (in_order != [name for name in first if name in self.expected])
