"""A stream of several channels, each of which is a separate stream on the server."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import numpy as np
from earmark_audio import MAX_CHANNELS

from earmark_client.async_stream import async_chunks
from earmark_client.audio import AudioFormat, Encoding, Silence, as_chunks, pcm_bytes
from earmark_client.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable

    from earmark_client.audio import Chunk
    from earmark_client.client import Client
    from earmark_client.events import Event

# Chunks of a channel that wait for its stream. A full queue makes the source wait.
_QUEUE_CHUNKS = 8


async def stream_channels(
    client: Client,
    audio: AsyncIterable[Chunk] | Iterable[Chunk],
    *,
    sample_rate_hz: int,
    channels: int,
    encoding: Encoding = Encoding.LINEAR16,
    **options: Any,
) -> AsyncGenerator[tuple[int, Event]]:
    """Stream audio of several channels, separately; yield each event with its channel, from 1.

    Arguments and errors are those of `Client.stream`, without `channel` and `resume`. Each channel is a
    stream of the server, and counts towards the server's limits. The first error ends all of them.
    """
    audio_format = AudioFormat(sample_rate_hz, encoding, channels)
    channels = audio_format.channels
    if not 1 <= channels <= MAX_CHANNELS:
        raise InvalidRequestError(f"channels must be 1 to {MAX_CHANNELS}, not {channels}", reason="BAD_AUDIO")
    sample_bytes = audio_format.frame_bytes // channels
    inputs: list[asyncio.Queue[bytes | Silence | None]] = [
        asyncio.Queue(_QUEUE_CHUNKS) for _ in range(channels)
    ]
    output: asyncio.Queue[tuple[int, Event] | None] = asyncio.Queue(_QUEUE_CHUNKS)

    async def split() -> None:
        rest = b""
        async for chunk in async_chunks(as_chunks(audio)):
            if isinstance(chunk, Silence):
                if rest:
                    raise InvalidRequestError(
                        "a silence begins within a sample of all channels", reason="BAD_AUDIO"
                    )
                parts: list[bytes | Silence] = [chunk] * channels
            else:
                data = rest + pcm_bytes(chunk, audio_format.encoding, channels)
                whole = len(data) // audio_format.frame_bytes * audio_format.frame_bytes
                rest = data[whole:]
                frames = np.frombuffer(data[:whole], np.uint8).reshape(-1, channels, sample_bytes)
                parts = [frames[:, channel].tobytes() for channel in range(channels)]
            for queue, part in zip(inputs, parts, strict=True):
                await queue.put(part)
        if rest:
            raise InvalidRequestError("the audio ends within a sample of all channels", reason="BAD_AUDIO")
        for queue in inputs:
            await queue.put(None)

    async def run(channel: int) -> None:
        part = _drain(inputs[channel - 1])
        events = client.stream(part, sample_rate_hz=sample_rate_hz, encoding=encoding, **options)
        async with aclosing(events):
            async for event in events:
                await output.put((channel, event))

    async def run_all() -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(split())
                for channel in range(1, channels + 1):
                    group.create_task(run(channel))
        except BaseExceptionGroup:
            await output.put(None)
            raise
        await output.put(None)

    running = asyncio.create_task(run_all())
    try:
        while (item := await output.get()) is not None:
            yield item
        try:
            await running
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None
    finally:
        running.cancel()
        await asyncio.wait([running])


async def _drain(queue: asyncio.Queue[bytes | Silence | None]) -> AsyncIterator[bytes | Silence]:
    while (chunk := await queue.get()) is not None:
        yield chunk
