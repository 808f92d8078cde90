"""The asynchronous client."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Self, TypeVar

import grpc.aio

from earmark_client import async_stream, messages
from earmark_client.addresses import DEFAULT_ADDRESS
from earmark_client.audio import AudioFormat, Encoding, as_chunks
from earmark_client.channel_pool import ChannelPool, HealthStub, SpottingStub, timeout_s
from earmark_client.errors import EarmarkError, client_closed, error_from_rpc, no_message, timed_out
from earmark_client.resume import ResumableStream
from earmark_client.stream_options import DEFAULT_RESUME_WITHIN_S, StreamOptions

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable
    from os import PathLike

    from google.protobuf.message import Message

    from earmark_client.audio import Chunk, KeywordSetting, Samples
    from earmark_client.credentials import Tls
    from earmark_client.events import Classification, Event, Health, ModelInfo, Progress, SpotResult

Result = TypeVar("Result")


class Client:
    """A connection to an Earmark server, for asyncio; `SyncClient` is its synchronous counterpart.

    `address` is HOST:PORT. `tls` encrypts the connection and verifies the server's certificate: True
    trusts the public certificate authorities, `Tls(ca=...)` your own. `token` authenticates the client.
    Without TLS it is sent only to this machine; for any other address InvalidRequestError is raised.

    The first call opens the connection, within `connect_timeout_s`. Unary calls time out after
    `call_timeout_s`. If HOST has several addresses, all calls go to the first one that answers. With
    `round_robin` they go in turn to all connected servers whose health is SERVING; the health check
    sends no token, so these servers need `earmark-server --open-health`.

    All methods raise subclasses of EarmarkError, such as AccessError if the server rejects the token and
    UntrustedServerError if its certificate cannot be verified.

    A client can run any number of calls concurrently. It belongs to the event loop of its first call.
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
        self._pool = ChannelPool(
            grpc.aio.insecure_channel,
            grpc.aio.secure_channel,
            address=address,
            tls=tls,
            token=token,
            connect_timeout_s=connect_timeout_s,
            round_robin=round_robin,
        )
        self.address = self._pool.target
        self._call_timeout_s = timeout_s("call_timeout_s", call_timeout_s)
        self._closed = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection and cancel all running calls."""
        self._closed.set()
        for channel in self._pool.close():
            await channel.close()

    def stream(
        self,
        audio: AsyncIterable[Chunk] | Iterable[Chunk],
        *,
        sample_rate_hz: int,
        encoding: Encoding = Encoding.LINEAR16,
        channels: int = 1,
        channel: int | None = None,
        model: str = "",
        models: Iterable[str] = (),
        keywords: Iterable[str | KeywordSetting] = (),
        score_interval_s: float | None = None,
        progress_interval_s: float | None = None,
        resume: Progress | None = None,
        resume_within_s: float = DEFAULT_RESUME_WITHIN_S,
        gate: bool = False,
        request_id: str = "",
        keep_audio_s: float | None = None,
    ) -> AsyncGenerator[Event]:
        """Stream live audio; yield events as soon as they are decided: Started first, Ended last.

        A started stream survives the loss of its connection and of its server. The client keeps the
        audio that a server would need again, reconnects with growing delays (possibly to another server
        behind the same name), and yields each event of the uninterrupted stream exactly once, with the same
        ids and offsets. `Reconnecting` and `Resumed` report this. If the stream does not advance for
        `resume_within_s`, it ends with ConnectionLostError. Until then the client keeps reading the
        source: it keeps at most `resume_within_s` + 30 s + `progress_interval_s` of audio, and makes a
        source wait that produces more than that faster than the server processes it. With
        `resume_within_s=0` no audio is kept, and a lost connection ends the stream.

        `audio` yields chunks of any length: bytes in `encoding` (split anywhere), numpy arrays of float
        (full scale at -1 and 1) or int16 samples, [n] or [n, channels], or `Silence(seconds)`. The stream
        ends with the iterator; an exception of the iterator ends the stream and is raised here. A plain
        iterable is read on the event loop, so it must not block.

        `channels` are averaged; `channel`: process only this one, 1 for the first. `model`: its name, by
        default the server's default model. `models`: several names instead; each Detection and Scores then
        states its model, and the server counts the stream once for each model. `keywords`: names or
        KeywordSettings, by default all keywords of the models. `score_interval_s`:
        interval of Scores, by default none. `progress_interval_s`: interval of Progress, 1 s by default.
        `resume`: continue a stream of another client from its latest Progress; `audio` then begins at
        its `replay_s`, and detections after that Progress come again with the same ids. `gate`: send
        silence in place of audio that is nearly silent, which saves network and CPU; scores right after
        such audio differ slightly. `request_id`: name of the stream in the server's log, by default chosen
        by the server. `keep_audio_s`: each Detection has its `audio`, from this long before the
        keyword to this long after it (at most 60 s), as far as the source has yielded it.

        Raises ConnectionLostError if the stream broke permanently, ServerUnreachableError if no server
        answers at its start, and InvalidRequestError if the server rejects the request.
        """
        options = StreamOptions(
            audio_format=AudioFormat(sample_rate_hz, encoding, channels, channel),
            model=model,
            models=models,
            keywords=keywords,
            score_interval_s=score_interval_s,
            progress_interval_s=progress_interval_s,
            resume=resume,
            resume_within_s=resume_within_s,
            gate=gate,
            request_id=request_id,
            keep_audio_s=keep_audio_s,
        )
        return async_stream.events(
            ResumableStream(options), as_chunks(audio), pool=self._pool, bind=self._bind_to_running_loop
        )

    async def spot(
        self,
        audio: str | PathLike[str] | bytes | Samples,
        *,
        sample_rate_hz: int | None = None,
        encoding: Encoding = Encoding.LINEAR16,
        channels: int = 1,
        channel: int | None = None,
        model: str = "",
        models: Iterable[str] = (),
        keywords: Iterable[str | KeywordSetting] = (),
        request_id: str = "",
    ) -> SpotResult:
        """Detect keywords in a whole short recording.

        `audio`: the path or the bytes of a file (as `Recording` reads), or, with `sample_rate_hz`, raw
        samples as bytes in `encoding` or as an array. `channel`: process only this channel, 1 for the first,
        instead of the mean of all. `models`: several models instead of one, as for `stream`.
        """
        return await self._unary(
            messages.spot(
                audio,
                None if sample_rate_hz is None else AudioFormat(sample_rate_hz, encoding, channels, channel),
                channel=channel,
                model=model,
                models=models,
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
        channel: int | None = None,
        model: str = "",
        request_id: str = "",
    ) -> Classification:
        """Classify a clip with one word; `audio` is as for `spot`."""
        return await self._unary(
            messages.classify(
                audio,
                None if sample_rate_hz is None else AudioFormat(sample_rate_hz, encoding, channels, channel),
                channel=channel,
                model=model,
                request_id=request_id,
            )
        )

    async def list_models(self) -> tuple[ModelInfo, ...]:
        """List the models that the server has loaded, the default model first."""
        return await self._unary(messages.list_models())

    async def get_model(self, name: str = "") -> ModelInfo:
        """Return one model, without a name the default model."""
        return await self._unary(messages.get_model(name))

    async def health(self, service: str = "") -> Health:
        """Return the health of the server, or of one of its services."""
        request = messages.health_request(service)
        return messages.health(
            await self._response(HealthStub, "Check", request, self._pool.connect_timeout_s)
        )

    async def watch_health(self, service: str = "") -> AsyncGenerator[Health]:
        """Yield the current health, and again at each change.

        Raises TimedOutError if the first answer does not come within `connect_timeout_s`, and another
        EarmarkError when the server is lost.
        """
        async with self._channel() as channel:
            request = messages.health_request(service)
            call = HealthStub(channel).Watch(request, metadata=self._pool.call_metadata)
            responses, answered = aiter(call), False
            try:
                async with asyncio.timeout(self._pool.connect_timeout_s):
                    response = await anext(responses, None)
                while response is not None:
                    answered = True
                    yield messages.health(response)
                    response = await anext(responses, None)
            except TimeoutError:
                raise timed_out(self.address) from None
            except asyncio.CancelledError:
                self._raise_if_closed()
                raise
            except grpc.aio.AioRpcError as error:
                raise error_from_rpc(error, self.address, answered=answered) from error
            finally:
                call.cancel()

    def _bind_to_running_loop(self) -> asyncio.Event:
        """Use channels of the running event loop: gRPC binds each channel to the loop that opened it.

        Returns the event that `close` sets. Raises EarmarkError if another loop, which is not closed, uses
        this client.
        """
        loop = asyncio.get_running_loop()
        if self._loop is not None and self._loop is not loop:
            if not self._loop.is_closed():
                raise EarmarkError(
                    "this client is used on another event loop: create one client for each event loop"
                )
            self._pool.discard_all()
            self._closed = asyncio.Event()
        self._loop = loop
        return self._closed

    def _raise_if_closed(self) -> None:
        """Raise the error of a call that `close` has ended, unless the caller's task is being cancelled."""
        task = asyncio.current_task()
        if self._closed.is_set() and not (task is not None and task.cancelling()):
            raise client_closed() from None

    @asynccontextmanager
    async def _channel(self) -> AsyncIterator[grpc.aio.Channel]:
        self._bind_to_running_loop()
        channel = self._pool.acquire()
        try:
            yield channel
        finally:
            unused = self._pool.release(channel)
            if unused is not None:
                await unused.close()

    async def _unary(self, call: messages.UnaryCall[Result]) -> Result:
        return call.parse(await self._response(SpottingStub, call.method, call.request, self._call_timeout_s))

    async def _response(
        self, stub: Callable[[grpc.aio.Channel], Any], method: str, request: Message, timeout_s: float
    ) -> Any:
        """Return the response to a unary call."""
        try:
            async with self._channel() as channel:
                call = getattr(stub(channel), method)
                response = await call(request, timeout=timeout_s, metadata=self._pool.call_metadata)
        except asyncio.CancelledError:
            self._raise_if_closed()
            raise
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error, self.address) from error
        if response is None:  # what grpc.aio returns for bytes that are not a message
            raise no_message(self.address)
        return response
