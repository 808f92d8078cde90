"""Forwards the audio of a stream from its client to the engine, within the limits on its length and rate."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from earmark_spotter.sample_time import NANOSECONDS, nearest_sample

from earmark_server.inference.pending_audio import Silence
from earmark_server.rpc import requests
from earmark_server.rpc.requests import AudioChunk
from earmark_server.rpc.validation import silence_ns
from earmark_server.status import CallError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from earmark_spotter import AudioFormat

    from earmark_server.inference.stream_handle import StreamHandle
    from earmark_server.rpc.request_reader import RequestReader
    from earmark_server.rpc.requests import StreamRequest
    from earmark_server.settings import Settings


class AudioForwarder:
    """Forwards one stream's audio, in its own task."""

    def __init__(
        self,
        reader: RequestReader[StreamRequest],
        stream: StreamHandle,
        audio_format: AudioFormat,
        settings: Settings,
        *,
        start_ns: int,
    ) -> None:
        """`start_ns`: the offset in the stream at which the audio of this call begins."""
        self.error: CallError | None = None
        """The error to end the call with, after the events of the audio before it."""
        self._reader = reader
        self._stream = stream
        self._settings = settings
        self._start_ns = start_ns
        self._rate_hz = audio_format.sample_rate_hz
        self._stopped = False

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Forward audio while the block runs."""
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            # A pending read must not be cancelled; it ends with its call.
            self._stopped = True
            if not self._reader.is_reading:
                task.cancel()

    async def _run(self) -> None:
        try:
            await self._forward()
        except CallError as error:
            self.end_with(error)
        except Exception as error:
            self._stream.fail(error)

    def end_with(self, error: CallError) -> None:
        """End the stream with an error, after the events of the audio that came before it."""
        if not self._stream.has_ended:
            self.error = error
            self._stream.end(early=True)

    async def _forward(self) -> None:
        stream, max_stream_s = self._stream, self._settings.max_stream_s
        max_rate, burst_s = self._settings.max_rate, self._settings.rate_burst_s
        limit = nearest_sample(round(max_stream_s * NANOSECONDS) - self._start_ns, self._rate_hz)
        clock = asyncio.get_running_loop().time
        started_s = clock()
        while (request := await self._reader.read()) is not None:
            if self._stopped or stream.has_ended:
                return
            audio = self._audio_of(request)
            if max_stream_s and stream.samples_with(audio) > limit:
                stream.send(stream.first_part(audio, limit))
                raise CallError(
                    "STREAM_TOO_LONG",
                    f"A stream may have at most {max_stream_s:g} s of audio on this server. Open a new one.",
                )
            if audio:
                stream.send(audio)
            if stream.at_capacity:
                await stream.wait_for_capacity()
            if max_rate:
                due_s = started_s + (stream.sent_ns / NANOSECONDS - burst_s) / max_rate
                if (early_s := due_s - clock()) > 0:
                    await asyncio.sleep(early_s)
        if not stream.has_ended:
            stream.end()

    def _audio_of(self, request: StreamRequest) -> bytes | Silence:
        """Return a request's audio. Raises CallError if it has none."""
        if isinstance(request, AudioChunk):
            return request.audio
        if isinstance(request, requests.Silence):
            return Silence(nearest_sample(silence_ns(request), self._rate_hz))
        if isinstance(request, requests.OpenStream):
            raise CallError("CONFIG_REPEATED", "A stream has one config, and this stream already has it.")
        raise CallError("BAD_AUDIO", "A message contains neither audio nor silence.")
