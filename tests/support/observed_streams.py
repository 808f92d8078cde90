"""Streams that record their audio, its pace, and every event that they return."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from earmark_client import (
    Client,
    Detection,
    Ended,
    Progress,
    Reconnecting,
    Recording,
    Resumed,
    Scores,
    Started,
    SyncClient,
)

from support.paths import DEMO

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from earmark_client import Chunk, Event

RATE_HZ = 16_000
CHUNK_S = 0.1


def demo(loops: int = 1) -> list[bytes]:
    with Recording(DEMO, block_s=CHUNK_S) as recording:
        return list(recording) * loops


class Stream:
    """A stream with its audio, sent at full speed or at a multiple of real time, and its events."""

    def __init__(self, chunks: list[Chunk], speed: float | None = None) -> None:
        self.chunks = chunks
        self.events: list[Event] = []
        self.sent_chunks = 0
        self.on_event: Callable[[Event], None] = lambda _: None
        self._speed = speed
        self._started = threading.Event()

    def record(self, event: Event) -> None:
        self.events.append(event)
        self._started.set()
        self.on_event(event)

    def release(self) -> None:
        """Release the audio, which waits for the start of the stream."""
        self._started.set()

    def _gaps_s(self) -> Iterator[float]:
        begin_s = time.monotonic()
        for i in range(len(self.chunks)):
            self.sent_chunks = i + 1
            due_s = begin_s + self.sent_chunks * CHUNK_S / self._speed if self._speed else 0.0
            yield max(0.0, due_s - time.monotonic())

    # Only a stream that has started is guaranteed to survive.

    def audio(self) -> Iterator[Chunk]:
        assert self._started.wait(60)
        for chunk, gap_s in zip(self.chunks, self._gaps_s(), strict=True):
            time.sleep(gap_s)
            yield chunk

    async def async_audio(self) -> AsyncIterator[Chunk]:
        assert await asyncio.to_thread(self._started.wait, 60)
        for chunk, gap_s in zip(self.chunks, self._gaps_s(), strict=True):
            await asyncio.sleep(gap_s)
            yield chunk

    def of(self, *kinds: type) -> list[Event]:
        return [event for event in self.events if isinstance(event, kinds)]


class PausedStream(Stream):
    """A stream whose last chunk is held back until it may end."""

    def __init__(self, chunks: list[Chunk], speed: float | None = None) -> None:
        super().__init__(chunks, speed)
        self.may_end = threading.Event()

    def release(self) -> None:
        super().release()
        self.may_end.set()

    def audio(self) -> Iterator[Chunk]:
        for chunk in super().audio():
            if self.sent_chunks == len(self.chunks):
                assert self.may_end.wait(60)
            yield chunk

    async def async_audio(self) -> AsyncIterator[Chunk]:
        async for chunk in super().async_audio():
            if self.sent_chunks == len(self.chunks):
                assert await asyncio.to_thread(self.may_end.wait, 60)
            yield chunk


def run(
    flavour: str, address: str, streams: list[Stream], *, round_robin: bool = False, **settings: Any
) -> None:
    """Run streams concurrently on one client, until all have ended."""
    settings = {"sample_rate_hz": RATE_HZ, **settings}

    async def run_async() -> None:
        async with Client(address, round_robin=round_robin) as client:
            await run_on(client, streams, **settings)

    if flavour == "async":
        asyncio.run(run_async())
        return
    with SyncClient(address, round_robin=round_robin) as client, ThreadPoolExecutor(len(streams)) as pool:

        def one(stream: Stream) -> None:
            for event in client.stream(stream.audio(), **settings):
                stream.record(event)

        try:
            for done in [pool.submit(one, stream) for stream in streams]:
                done.result(240)
        finally:
            for stream in streams:
                stream.release()


async def run_on(client: Client, streams: list[Stream], **settings: Any) -> None:
    """Run streams concurrently, until all have ended."""

    async def one(stream: Stream) -> None:
        async for event in client.stream(stream.async_audio(), **settings):
            stream.record(event)

    try:
        await asyncio.wait_for(asyncio.gather(*map(one, streams)), 240)
    finally:
        for stream in streams:
            stream.release()


def run_undisturbed(address: str, chunks: list[Chunk], **settings: Any) -> Stream:
    stream = Stream(chunks)
    run("sync", address, [stream], **settings)
    assert not stream.of(Reconnecting, Resumed)
    return stream


def assert_same_events(stream: Stream, expected: Stream) -> None:
    def found(of: Stream) -> list[tuple[str, float, float]]:
        return [(one.id, one.start_s, one.end_s) for one in of.of(Detection)]

    def progress(of: Stream) -> list[tuple[float, float, bool]]:
        return [(one.decided_s, one.replay_s, one.draining) for one in of.of(Progress)]

    assert found(stream) == found(expected)
    assert found(expected)
    assert [one.offset_s for one in stream.of(Scores)] == [one.offset_s for one in expected.of(Scores)]
    assert progress(stream) == progress(expected)
    received_s = [one.received_s for one in stream.of(Progress)]
    assert received_s == sorted(received_s)
    assert [type(event) for event in stream.of(Started, Ended)] == [Started, Ended]
    assert isinstance(stream.events[0], Started)
    assert stream.events[-1] == expected.events[-1]


def run_in_background(work: Callable[[], None]) -> Any:
    pool = ThreadPoolExecutor(1)
    try:
        return pool.submit(work)
    finally:
        pool.shutdown(wait=False)
