"""One audio stream of a satellite: a stream of the gRPC service, and another one whenever that ends early."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

from earmark_client.errors import AccessError, EarmarkError, InvalidRequestError, UnknownModelError
from earmark_client.events import Detection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from earmark_client.client import Client

    from earmark_wyoming.wake_words import WakeWord

# Audio that waits to be sent. More of it slows the satellite down.
_MAX_WAITING_BYTES = 256 * 1024
# How long a detection may come after its audio, so that its timestamp is still known.
_MAX_DELAY_S = 120.0
_FIRST_RETRY_S, _LONGEST_RETRY_S = 0.5, 10.0
# Errors with which a server rejects a request. After `Started`, they end only the stream: its model has been
# replaced, or it is too long.
_REJECTIONS = (InvalidRequestError, UnknownModelError, AccessError)


class WakeStream:
    """Streams 16-bit audio, and reports the detections with the satellite's timestamps.

    A gRPC stream that cannot be resumed is replaced by a new one; the audio in between is dropped, because
    a wake word that was spoken then comes too late. If the server rejects one, all further audio is dropped.
    """

    def __init__(
        self,
        client: Client,
        words: Sequence[WakeWord],
        *,
        sample_rate_hz: int,
        channels: int,
        on_detection: Callable[[WakeWord, Detection, int], Awaitable[None]],
        on_error: Callable[[EarmarkError, bool], Awaitable[None]],
    ) -> None:
        """`words`: at least one. `on_error`: with whether the server rejects the request."""
        self._client = client
        self._words = {(word.model, word.setting.keyword): word for word in words}
        self._rate_hz, self._channels = sample_rate_hz, channels
        self._on_detection, self._on_error = on_detection, on_error
        self._chunks: asyncio.Queue[tuple[bytes, float] | None] = asyncio.Queue()
        self._waiting_bytes = 0
        self._consumed = asyncio.Event()  # set whenever some of the waiting audio is removed
        self._accepts_audio = True
        self._ended = False
        # Pairs of an offset in the current gRPC stream and the satellite's time, s and ms.
        self._times: deque[tuple[float, float]] = deque()
        self._task = asyncio.create_task(self._run())

    async def put(self, data: bytes, timestamp_ms: float) -> None:
        """Append a chunk that begins at a timestamp. Waits while the server is too slow."""
        while self._accepts_audio and self._waiting_bytes > _MAX_WAITING_BYTES:
            self._consumed.clear()
            await self._consumed.wait()
        if self._accepts_audio:
            self._waiting_bytes += len(data)
            self._chunks.put_nowait((data, timestamp_ms))

    async def end(self) -> None:
        """End the audio, and wait until all of its detections have been reported."""
        self._ended = True
        if self._accepts_audio:
            self._chunks.put_nowait(None)
            await self._task
        else:
            await self.cancel()

    async def cancel(self) -> None:
        """End the stream at once."""
        self._accepts_audio = False
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        retry_s = _FIRST_RETRY_S
        while not self._ended:
            accepted = False
            try:
                async for event in self._client.stream(
                    self._audio(),
                    sample_rate_hz=self._rate_hz,
                    channels=self._channels,
                    models=list(dict.fromkeys(model for model, _ in self._words)),
                    keywords=[word.setting for word in self._words.values()],
                ):
                    retry_s, accepted = _FIRST_RETRY_S, True
                    if isinstance(event, Detection):
                        word = self._words[event.model, event.keyword]
                        await self._on_detection(word, event, self._timestamp_ms(event.end_s))
                return
            except EarmarkError as error:
                self._accepts_audio = False
                self._drop_chunks()
                is_rejection = isinstance(error, _REJECTIONS) and not accepted
                await self._on_error(error, is_rejection)
                if is_rejection:
                    return
            await asyncio.sleep(retry_s)
            retry_s = min(2 * retry_s, _LONGEST_RETRY_S)
            self._accepts_audio = True

    async def _audio(self) -> AsyncIterator[bytes]:
        self._times.clear()
        sent_bytes = 0
        while (item := await self._chunks.get()) is not None:
            data, timestamp_ms = item
            offset_s = sent_bytes / 2 / self._channels / self._rate_hz
            self._times.append((offset_s, timestamp_ms))
            while self._times[0][0] < offset_s - _MAX_DELAY_S:
                self._times.popleft()
            sent_bytes += len(data)
            self._waiting_bytes -= len(data)
            self._consumed.set()
            yield data

    def _timestamp_ms(self, offset_s: float) -> int:
        """Return the satellite's time of an offset in the current gRPC stream."""
        begin_s, begin_ms = next((one for one in reversed(self._times) if one[0] <= offset_s), (0.0, 0.0))
        return round(begin_ms + (offset_s - begin_s) * 1000)

    def _drop_chunks(self) -> None:
        while not self._chunks.empty():
            if self._chunks.get_nowait() is None:
                self._ended = True
        self._waiting_bytes = 0
        self._consumed.set()
