"""Reads what a stream's client sends: its config, then its audio, as fast as it is listened to."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import grpc

from earmark_server import wire
from earmark_server.listening import NANOSECONDS
from earmark_server.operations import left_to_end
from earmark_server.status import CallError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from earmark_spotter import AudioFormat

    from earmark_server.engine import EngineStream
    from earmark_server.idle import Activity


class Reader:
    """Reads one stream's messages."""

    def __init__(self, context: grpc.aio.ServicerContext[Any, Any], activity: Activity) -> None:
        self._context = context
        self._activity = activity
        self._over = False

    async def config(self) -> Any:
        """Read the stream's config, which must be its first message."""
        request = await left_to_end(self._read())
        if request is not grpc.aio.EOF and wire.readable(request).WhichOneof("request") == "config":
            return request.config
        raise CallError("CONFIG_EXPECTED_FIRST", "The first message of a stream must be its config.")

    @contextlib.contextmanager
    def sending_on(self, stream: EngineStream, audio_format: AudioFormat) -> Iterator[None]:
        """Hand over what the client sends while the block runs, as fast as it is listened to."""
        task = asyncio.create_task(self._send_on(stream, audio_format))
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

    async def _send_on(self, stream: EngineStream, audio_format: AudioFormat) -> None:
        rate_hz = audio_format.sample_rate_hz
        byte_ns = NANOSECONDS / (rate_hz * audio_format.frame_bytes)
        byte_count = 0
        try:
            while True:
                if stream.is_full:
                    await stream.room()
                request = await self._read()
                if self._over:
                    return
                if request is grpc.aio.EOF:
                    stream.end()
                    return
                kind = wire.readable(request).WhichOneof("request")
                if kind == "audio":
                    # Each look at the field copies its bytes.
                    if audio := request.audio:
                        before_ns = round(byte_count * byte_ns)
                        byte_count += len(audio)
                        stream.send(audio, round(byte_count * byte_ns) - before_ns)
                elif kind == "silence":
                    stream.send(*wire.silence(request.silence, rate_hz))
                elif kind == "config":
                    raise CallError(
                        "CONFIG_REPEATED", "A stream has one config, and this one has it already."
                    )
                else:
                    raise CallError("BAD_AUDIO", "A message had neither audio nor silence in it.")
        except Exception as error:
            stream.fail(error)
