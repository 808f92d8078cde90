"""An engine with a fake model and fake sessions, whose steps a test can count, block and let fail."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
from earmark_server.inference.engine import Engine
from earmark_server.inference.events import Finished
from earmark_server.inference.pending_audio import End

from support.deadlines import DEADLINE_S

if TYPE_CHECKING:
    from earmark_server.inference.events import Event

SECOND_NS = 10**9


class FakeModel:
    """Adds up the samples of each stream in its state; one sample is one step."""

    state_size = 1
    metadata = SimpleNamespace(sample_rate_hz=1)

    def __init__(self) -> None:
        self.initial_state = np.array([100], np.float32)
        self.batches: list[tuple[int, int]] = []
        self.go = threading.Event()
        self.go.set()
        self.entered = threading.Event()
        self.poison = float("inf")

    def step(self, pcm: np.ndarray, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.entered.set()
        assert self.go.wait(DEADLINE_S)
        if (pcm == self.poison).any():
            raise RuntimeError("a poisoned step")
        self.batches.append(pcm.shape)
        sums = state + np.cumsum(pcm, axis=1)
        return sums[:, :, np.newaxis], sums[:, -1:]


class FakePending(deque[Any]):
    """Pending audio that counts the bytes that were removed."""

    released_bytes = 0

    def popleft(self) -> Any:
        item = super().popleft()
        self.released_bytes += getattr(item, "nbytes", 0)
        return item


class FakeSession:
    """A session whose input is samples at 1 Hz; every step makes an event with the state after it."""

    is_quiet = False
    starts_from_initial_state = False

    def __init__(self, model: FakeModel) -> None:
        self.model: Any = model
        self.audio_format: Any = SimpleNamespace(sample_rate_hz=1, frame_bytes=4)
        self.processed_samples = 0
        self.due_samples = 0
        self.pending = FakePending()
        self._samples: deque[float] = deque()

    @property
    def has_pending(self) -> bool:
        return bool(self.pending or self._samples)

    def prepare(self, limit_s: float) -> int:
        while self.pending:
            item = self.pending.popleft()
            if isinstance(item, Exception):
                raise item
            if item is not End.OF_AUDIO:
                self._samples.extend(item)
        return min(round(limit_s * 50), len(self._samples))

    def consume(self, steps: int) -> np.ndarray:
        return np.array([self._samples.popleft() for _ in range(steps)], np.float32)

    def apply(self, scores: np.ndarray) -> list[Event]:
        self.processed_samples += len(scores)
        return [Finished(int(score)) for score in scores[:, 0]]

    def skip_quiet(self) -> list[Event]:
        raise NotImplementedError

    @property
    def lanes(self) -> tuple[FakeSession]:
        return (self,)

    def collect(self, events: list[Event]) -> list[Event]:
        return events

    def progress(self) -> list[Event]:
        return []


def samples(value: float, count: int = 1) -> np.ndarray:
    return np.full(count, value, np.float32)


async def events_of(stream: Any, count: int) -> list[Any]:
    found: list[Any] = []
    async with asyncio.timeout(DEADLINE_S):
        while len(found) < count:
            found += await stream.events()
    return found


async def until(condition: Any) -> None:
    """Wait for a condition on the engine's thread, which offers no event to wait for."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


class Bench:
    def __init__(self, engine: Engine | None = None) -> None:
        self.model = FakeModel()
        self.engine = engine or Engine()

    async def __aenter__(self) -> Bench:
        self.engine.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.model.go.set()
        await self.engine.stop()

    def open(self, max_pending_s: int = 1000) -> Any:
        return self.engine.open_stream(FakeSession(self.model), max_pending_s * SECOND_NS)

    async def block(self) -> None:
        """Block the engine in an inference for a stream that is opened for this purpose."""
        self.model.go.clear()
        self.model.entered.clear()
        self.open().send(samples(0.0))
        await until(self.model.entered.is_set)
