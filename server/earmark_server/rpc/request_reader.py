"""Reads what a client sends: a request, or a stream's audio, as fast and as long as it may."""

from __future__ import annotations

import asyncio
import contextlib
import math
from typing import TYPE_CHECKING, Any

import grpc
from earmark_spotter.stream import NANOSECONDS

from earmark_server.rpc import wire
from earmark_server.rpc.uncancelled import left_to_end
from earmark_server.status import CallError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from earmark_spotter import AudioFormat

    from earmark_server.inference.pending_audio import Silence
    from earmark_server.inference.stream_handle import StreamHandle
    from earmark_server.rpc.idle_timeout import Activity
    from earmark_server.settings import Settings


class Reader:
    """Reads one call's messages."""

    def __init__(
        self, context: grpc.aio.ServicerContext[Any, Any], activity: Activity, settings: Settings
    ) -> None:
        self._context = context
        self._activity = activity
        self._settings = settings
        self._over = False
        self.cut_off: CallError | None = None
        """Why the audio was ended although the client has more."""

    async def first(self) -> Any:
        """Read the call's first message, which is all of it where it has one only."""
        request = await left_to_end(self._read())
        return None if request is grpc.aio.EOF else wire.readable(request)

    @contextlib.contextmanager
    def sending_on(self, stream: StreamHandle, audio_format: AudioFormat, start_ns: int) -> Iterator[None]:
        """Hand over what the client sends while the block runs; `start_ns`: where in the stream it begins."""
        task = asyncio.create_task(self._send_on(stream, audio_format, start_ns))
        try:
            yield
        finally:
            # A read is not to be cancelled (see `left_to_end`), and ends with the call.
            self._over = True
            if self._activity.reading_since is None:
                task.cancel()

    async def _read(self) -> Any:
        self._activity.reading_since = self._activity.now()
        request = await self._context.read()
        self._activity.reading_since = None
        return request

    async def _send_on(self, stream: StreamHandle, audio_format: AudioFormat, start_ns: int) -> None:
        longest_s, rate = self._settings.max_stream_s, self._settings.max_rate
        burst_s = self._settings.rate_burst_s
        most_ns = longest_s * NANOSECONDS - start_ns if longest_s else math.inf
        begun_s = self._activity.now()
        pieces = _Pieces(audio_format)
        try:
            while (request := await self._read()) is not grpc.aio.EOF:
                if self._over:
                    return
                item, length_ns = pieces.take(wire.readable(request))
                if stream.sent_ns + length_ns > most_ns:
                    message = f"A stream may have {longest_s:g} s of audio here: go on with a new one."
                    self.cut_off = CallError("STREAM_TOO_LONG", message)
                    break
                if item:
                    stream.send(item, length_ns)
                if stream.at_capacity:
                    await stream.wait_for_capacity()
                if rate:
                    due_s = begun_s + (stream.sent_ns / NANOSECONDS - burst_s) / rate
                    if (early_s := due_s - self._activity.now()) > 0:
                        await asyncio.sleep(early_s)
            stream.end()
        except Exception as error:
            stream.fail(error)


class _Pieces:
    """What messages have of audio, and how long it is."""

    def __init__(self, audio_format: AudioFormat) -> None:
        self._rate_hz = audio_format.sample_rate_hz
        self._byte_ns = NANOSECONDS / (audio_format.sample_rate_hz * audio_format.frame_bytes)
        self._byte_count = 0

    def take(self, request: Any) -> tuple[bytes | Silence, int]:
        """Give a message's audio and its length in nanoseconds. Raises CallError where it has none."""
        kind = request.WhichOneof("request")
        if kind == "audio":
            audio = request.audio  # each look at it copies its bytes
            # Lengths add up to the whole's, whatever the pieces are.
            before_ns = round(self._byte_count * self._byte_ns)
            self._byte_count += len(audio)
            return audio, round(self._byte_count * self._byte_ns) - before_ns
        if kind == "silence":
            return wire.silence(request.silence, self._rate_hz)
        if kind == "config":
            raise CallError("CONFIG_REPEATED", "A stream has one config, and this one has it already.")
        raise CallError("BAD_AUDIO", "A message had neither audio nor silence in it.")
