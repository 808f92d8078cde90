"""The asynchronous client."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Self, TypeVar

import grpc.aio

from earmark_client import async_stream, messages
from earmark_client.audio import Encoding
from earmark_client.channel import (
    DEFAULT_ADDRESS,
    HealthStub,
    Line,
    SpottingStub,
    connect,
    is_local,
    options,
    target,
)
from earmark_client.credentials import credentials, metadata
from earmark_client.errors import error_from_rpc
from earmark_client.resume import RESUME_WITHIN_S, UnbrokenStream

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable
    from os import PathLike

    from earmark_client.audio import Chunk, KeywordSetting, Samples
    from earmark_client.credentials import Tls
    from earmark_client.events import Classification, Event, Health, ModelInfo, Progress, SpotResult

Result = TypeVar("Result")


class Client:
    """A connection to an Earmark server, for asyncio; `SyncClient` is its twin for plain code.

    `address` is HOST:PORT. With `tls` everything is encrypted, and the server's certificate checked:
    True trusts the public authorities, `Tls(ca=...)` one's own. `token` says who calls; it is sent in
    plain text only where it does not leave this machine, else InvalidRequestError says so.

    The connection is made by the first call, within `connect_timeout_s`; calls with one answer may take
    `call_timeout_s`. Where HOST has several addresses, calls go to the first that answers; with
    `round_robin` in turn to all that answered so far and whose health is SERVING, which they must tell
    without a token (`earmark-server --open-health`).

    Every method raises kinds of EarmarkError: AccessError where the server wants another token,
    UntrustedServerError where it is not to be trusted.

    One client serves any number of calls at the same time, on the event loop that it was first used on.
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        tls: bool | Tls = False,
        token: str | None = None,
        connect_timeout_s: float = 5.0,
        call_timeout_s: float = 60.0,
        round_robin: bool = False,
    ) -> None:
        self.address = target(address)
        self._connect_timeout_s = connect_timeout_s
        self._call_timeout_s = call_timeout_s
        own = credentials(tls)
        settings = options(self.address, connect_timeout_s, round_robin=round_robin)
        # A channel belongs to the loop that runs when it is made.
        self._line = Line(
            lambda: connect(grpc.aio, self.address, own, settings),
            metadata(token, is_safe=own is not None or is_local(self.address)),
        )
        self._closed = asyncio.Event()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; calls under way are cancelled."""
        self._closed.set()
        for channel in self._line.close():
            await channel.close()

    def stream(
        self,
        audio: AsyncIterable[Chunk] | Iterable[Chunk],
        *,
        sample_rate_hz: int,
        encoding: Encoding = Encoding.LINEAR16,
        channels: int = 1,
        model: str = "",
        keywords: Iterable[str | KeywordSetting] = (),
        score_interval_s: float | None = None,
        progress_interval_s: float | None = None,
        resume: Progress | None = None,
        resume_within_s: float = RESUME_WITHIN_S,
        request_id: str = "",
    ) -> AsyncGenerator[Event]:
        """Send live audio and get events as they are decided: Started first, Ended last.

        A stream that has started survives its connection and its server: the client keeps the audio
        that a server would need again, tries again with growing pauses, on a new connection (which
        may lead to another server behind the same name), and gives every event of an unbroken
        stream exactly once, with the same ids and offsets. `Reconnecting` and `Resumed` tell of it.
        It gives up, with ConnectionLostError, when the stream has got no further for
        `resume_within_s`. Until then the source is not kept waiting: at most `resume_within_s` and
        30 s of audio, and a `progress_interval_s`, are kept. A source that gives more than that,
        faster than the server listens, waits. With `resume_within_s=0` nothing is kept and what breaks
        is broken.

        `audio` gives chunks of any length: bytes in `encoding` (split anywhere), or numpy arrays of
        float (full scale at -1 and 1) or int16 samples, [n] or [n, channels], or `Silence(seconds)`.
        It ends with the iterator; an exception of the iterator ends the stream and comes out here. A
        plain iterable is read on the event loop, so it must not block.

        `keywords`: names or KeywordSettings; none means all of the model's. `score_interval_s`: ask
        for Scores so often. `progress_interval_s`: how often Progress comes (1 s). `resume`: go on
        with a stream of another client, from its newest Progress; `audio` then begins at its
        `replay_s`, and detections that came after that Progress come again with the same ids.

        ConnectionLostError when the stream broke for good, ServerUnreachableError when no server
        answers at its beginning, InvalidRequestError for what the contract refuses.
        """
        stream = UnbrokenStream(
            sample_rate_hz=sample_rate_hz,
            encoding=encoding,
            channels=channels,
            model=model,
            keywords=keywords,
            score_interval_s=score_interval_s,
            progress_interval_s=progress_interval_s,
            resume=resume,
            resume_within_s=resume_within_s,
            request_id=request_id,
        )
        return async_stream.events(stream, audio, line=self._line, address=self.address, closed=self._closed)

    async def spot(
        self,
        audio: str | PathLike[str] | bytes | Samples,
        *,
        sample_rate_hz: int | None = None,
        encoding: Encoding = Encoding.LINEAR16,
        channels: int = 1,
        model: str = "",
        keywords: Iterable[str | KeywordSetting] = (),
        request_id: str = "",
    ) -> SpotResult:
        """Mark every keyword in a whole short recording.

        `audio`: a file's path, a file's bytes (WAV, FLAC, Ogg), or, with `sample_rate_hz`, raw
        samples as bytes in `encoding` or as an array.
        """
        return await self._unary(
            messages.spot(
                audio,
                sample_rate_hz=sample_rate_hz,
                encoding=encoding,
                channels=channels,
                model=model,
                keywords=keywords,
                request_id=request_id,
            )
        )

    async def classify(
        self,
        audio: str | PathLike[str] | bytes | Samples,
        *,
        sample_rate_hz: int | None = None,
        encoding: Encoding = Encoding.LINEAR16,
        channels: int = 1,
        model: str = "",
        request_id: str = "",
    ) -> Classification:
        """Name the one word in a clip; `audio` as for `spot`."""
        return await self._unary(
            messages.classify(
                audio,
                sample_rate_hz=sample_rate_hz,
                encoding=encoding,
                channels=channels,
                model=model,
                request_id=request_id,
            )
        )

    async def list_models(self) -> tuple[ModelInfo, ...]:
        """List the models that the server has loaded, the default one first."""
        return await self._unary(messages.list_models())

    async def get_model(self, name: str = "") -> ModelInfo:
        """Describe one model; without a name, the default one."""
        return await self._unary(messages.get_model(name))

    async def health(self, service: str = "") -> Health:
        """Ask whether the server, or one of its services, is serving."""
        try:
            async with self._channel() as channel:
                check = HealthStub(channel).Check
                request = messages.health_request(service)
                return messages.health(
                    await check(request, timeout=self._connect_timeout_s, metadata=self._line.metadata)
                )
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error, self.address) from error

    async def watch_health(self, service: str = "") -> AsyncGenerator[Health]:
        """Give the health now, and again whenever it changes, until the server goes away."""
        async with self._channel() as channel:
            call = HealthStub(channel).Watch(messages.health_request(service), metadata=self._line.metadata)
            answered = False
            try:
                async for response in call:
                    answered = True
                    yield messages.health(response)
            except grpc.aio.AioRpcError as error:
                raise error_from_rpc(error, self.address, answered=answered) from error
            finally:
                call.cancel()

    @asynccontextmanager
    async def _channel(self) -> AsyncIterator[grpc.aio.Channel]:
        channel = self._line.take()
        try:
            yield channel
        finally:
            worn = self._line.give_back(channel)
            if worn is not None:
                await worn.close()

    async def _unary(self, unary: messages.Unary[Result]) -> Result:
        try:
            async with self._channel() as channel:
                method = getattr(SpottingStub(channel), unary.method)
                return unary.read(
                    await method(unary.request, timeout=self._call_timeout_s, metadata=self._line.metadata)
                )
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error, self.address) from error
