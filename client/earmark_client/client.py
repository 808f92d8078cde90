"""The asynchronous client."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self, TypeVar

import grpc.aio

from earmark_client import messages
from earmark_client.audio import Encoding
from earmark_client.channel import DEFAULT_ADDRESS, HealthStub, SpottingStub, options, target
from earmark_client.errors import ConnectionLostError, EarmarkError, error_from_rpc

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Coroutine, Iterable
    from os import PathLike

    from earmark_client.audio import Chunk, KeywordSetting, Samples
    from earmark_client.events import Classification, Event, Health, ModelInfo, Progress, SpotResult

Result = TypeVar("Result")


class Client:
    """A connection to an Earmark server, for asyncio; `SyncClient` is its twin for plain code.

    `address` is HOST:PORT. The connection is made by the first call, within `connect_timeout_s`;
    calls with one answer may take `call_timeout_s`. Every method raises kinds of EarmarkError.
    One client serves any number of calls at the same time, on the event loop that it was first used on.
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        connect_timeout_s: float = 5.0,
        call_timeout_s: float = 60.0,
    ) -> None:
        self.address = target(address)
        self._connect_timeout_s = connect_timeout_s
        self._call_timeout_s = call_timeout_s
        self._open_channel: grpc.aio.Channel | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; calls under way are cancelled."""
        self._closed = True
        if self._open_channel is not None:
            await self._open_channel.close()

    async def stream(
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
        request_id: str = "",
    ) -> AsyncGenerator[Event]:
        """Send live audio and get events as they are decided: Started first, Ended last.

        `audio` gives chunks of any length: bytes in `encoding` (split anywhere), or numpy arrays of
        float (full scale at -1 and 1) or int16 samples, [n] or [n, channels], or `Silence(seconds)`.
        The next chunk is taken when the server has room for it. It ends with the iterator; an
        exception of the iterator ends the stream and comes out here. A plain iterable is read on the
        event loop, so it must not block.

        `keywords`: names or KeywordSettings; none means all of the model's. `score_interval_s`: ask
        for Scores so often. `progress_interval_s`: how often Progress comes (1 s). `resume`: go on
        with a stream that broke, from its newest Progress; `audio` then begins at its `replay_s`, and
        detections that came after that Progress come again with the same ids.

        ConnectionLostError when the server goes away, ServerUnreachableError when none answers,
        InvalidRequestError for what the contract refuses.
        """
        first = messages.stream_config(
            sample_rate_hz=sample_rate_hz,
            encoding=encoding,
            channels=channels,
            model=model,
            keywords=keywords,
            score_interval_s=score_interval_s,
            progress_interval_s=progress_interval_s,
            resume=resume,
            request_id=request_id,
        )
        call = SpottingStub(self._channel()).StreamingSpot()
        given = _GivenStatus(call)
        sender = asyncio.create_task(_send(call, first, audio, encoding))
        answered = False
        try:
            async for response in call:
                answered = True
                event = messages.event(response)
                if event is not None:
                    yield event
        except grpc.aio.AioRpcError as error:
            failed = await given.instead_of(error)
            raise error_from_rpc(failed, self.address, answered=answered) from error
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # gRPC's word for a call that this side ended: `_send`, for its audio failed, or `close`.
            if sender.done() and not sender.cancelled() and (failure := sender.exception()) is not None:
                raise failure from None
            raise ConnectionLostError("the client was closed in the middle of a stream") from None
        finally:
            call.cancel()
            sender.cancel()
            await asyncio.wait([sender])
            if not sender.cancelled():
                sender.exception()  # seen: asyncio would report it as never retrieved

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
            return messages.health(
                await HealthStub(self._channel()).Check(
                    messages.health_request(service), timeout=self._connect_timeout_s
                )
            )
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error, self.address) from error

    async def watch_health(self, service: str = "") -> AsyncGenerator[Health]:
        """Give the health now, and again whenever it changes, until the server goes away."""
        call = HealthStub(self._channel()).Watch(messages.health_request(service))
        answered = False
        try:
            async for response in call:
                answered = True
                yield messages.health(response)
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error, self.address, answered=answered) from error
        finally:
            call.cancel()

    def _channel(self) -> grpc.aio.Channel:
        if self._closed:
            raise EarmarkError("this client has been closed: make a new one")
        # Not in the constructor: a channel belongs to the loop that runs when it is made.
        if self._open_channel is None:
            self._open_channel = grpc.aio.insecure_channel(
                self.address, options=options(self.address, self._connect_timeout_s)
            )
        return self._open_channel

    async def _unary(self, unary: messages.Unary[Result]) -> Result:
        method = getattr(SpottingStub(self._channel()), unary.method)
        try:
            return unary.read(await method(unary.request, timeout=self._call_timeout_s))
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error, self.address) from error


class _GivenStatus:
    """The status that the server gave a call.

    grpc.aio writes INTERNAL over it when a write fails because the call has just ended
    (https://github.com/grpc/grpc/issues/36066): without this, the reason of a refusal would be lost.
    """

    _OVERWRITTEN = "Internal error from Core"

    def __init__(self, call: Any) -> None:
        self._error: grpc.aio.AioRpcError | None = None
        self._known = asyncio.Event()
        call.add_done_callback(self._note)

    async def instead_of(self, error: grpc.aio.AioRpcError) -> grpc.aio.AioRpcError:
        """Give the error that the server sent, where the one that was raised hides it."""
        if error.details() != self._OVERWRITTEN:
            return error
        with suppress(TimeoutError):
            # Written over before it came, it is on its way.
            await asyncio.wait_for(self._known.wait(), 1.0)
        return self._error or error

    def _note(self, call: Any) -> None:
        # Called with each status in turn; of a call that is done these coroutines never wait.
        details = _result(call.details())
        if details != self._OVERWRITTEN:
            self._error = grpc.aio.AioRpcError(
                _result(call.code()), grpc.aio.Metadata(), _result(call.trailing_metadata()), details
            )
            self._known.set()


def _result(finished: Coroutine[Any, Any, Any]) -> Any:
    """Give the result of a coroutine that has nothing to wait for."""
    try:
        finished.send(None)
    except StopIteration as stop:
        return stop.value
    finished.close()
    raise RuntimeError("a call that is done has no status")


async def _send(
    call: Any, first: Any, audio: AsyncIterable[Chunk] | Iterable[Chunk], encoding: Encoding
) -> None:
    """Write the configuration and every chunk, each when there is room for it, and half-close.

    A call that has ended is the reader's affair; a failure of `audio` cancels the call and is kept.
    """
    try:
        # A write to a call that has ended raises one of these two.
        ended = (grpc.aio.AioRpcError, asyncio.InvalidStateError)
        try:
            await call.write(first)
        except ended:
            return
        async for chunk in _aiter(audio):
            for request in messages.chunk_requests(chunk, encoding):
                try:
                    await call.write(request)
                except ended:
                    return
        with suppress(*ended):
            await call.done_writing()
    except Exception:
        call.cancel()
        raise


async def _aiter(audio: AsyncIterable[Chunk] | Iterable[Chunk]) -> AsyncIterator[Chunk]:
    if hasattr(audio, "__aiter__"):
        async for chunk in audio:
            yield chunk
    else:
        for chunk in audio:
            yield chunk
