"""One stream of the asynchronous client: what runs beside its reader, and the call that it is on."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import grpc.aio

from earmark_client import messages
from earmark_client.channel import SpottingStub
from earmark_client.errors import ConnectionLostError, EarmarkError, ServerUnreachableError, error_from_rpc

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Coroutine, Iterable

    from earmark_client.audio import Chunk, Silence
    from earmark_client.channel import Line
    from earmark_client.credentials import Metadata
    from earmark_client.events import Event
    from earmark_client.replay_buffer import Outbox
    from earmark_client.resume import UnbrokenStream

_CLOSED = "the client was closed in the middle of a stream"


async def events(
    stream: UnbrokenStream,
    audio: AsyncIterable[Chunk] | Iterable[Chunk],
    *,
    line: Line,
    address: str,
    closed: asyncio.Event,
) -> AsyncGenerator[Event]:
    """Give a stream's events, over as many calls as it takes."""
    queue = _Queue(stream)
    feeder = asyncio.create_task(_feed(queue, audio))
    try:
        while True:
            channel, pause = line.take(), None
            call = _Call(stream, queue, channel, line.metadata, address)
            try:
                while (found := await call.events()) is not None:
                    for event in found:
                        yield event
            except EarmarkError as error:
                if closed.is_set():
                    raise
                pause = stream.pause(error)
            else:
                if stream.ended:
                    return
                pause = stream.pause(None)
            finally:
                await call.end()
                worn = line.give_back(channel, worn=pause is not None)
                if worn is not None:
                    await worn.close()
            yield pause
            with suppress(TimeoutError):
                await asyncio.wait_for(closed.wait(), pause.delay_s)
                raise ConnectionLostError(_CLOSED)
    finally:
        feeder.cancel()
        await asyncio.wait([feeder])


class _Queue:
    """The stream's outbox, for the task that fills it and the one that empties it."""

    def __init__(self, stream: UnbrokenStream) -> None:
        self._outbox = stream.outbox
        self._filled, self._emptied = asyncio.Event(), asyncio.Event()

    async def put(self, chunk: Chunk) -> None:
        """Put a chunk in, and wait until there is room for the next."""
        for piece in self._outbox.pieces(chunk):
            await self.room()
            self._outbox.put(piece)
            self._filled.set()
        await self.room()

    async def room(self) -> None:
        """Wait until there is room."""
        while not self._outbox.has_room:
            self._emptied.clear()
            await self._emptied.wait()

    def end(self, failure: Exception | None = None) -> None:
        """Put the end in."""
        self._outbox.end(failure)
        self._filled.set()

    async def next(self) -> bytes | Silence | None:
        """Wait for what is to be sent next; None at the end."""
        while (audio := self._outbox.next()) is None and not self._outbox.over:
            self._filled.clear()
            await self._filled.wait()
        self._emptied.set()
        return audio

    def look_for_room(self) -> None:
        """Look again: something may have been let go of."""
        self._emptied.set()


async def _feed(queue: _Queue, audio: AsyncIterable[Chunk] | Iterable[Chunk]) -> None:
    """Take the caller's audio, also while there is no connection."""
    try:
        async for chunk in _aiter(audio):
            await queue.put(chunk)
    except Exception as failure:
        queue.end(failure)
    else:
        queue.end()


async def _aiter(audio: AsyncIterable[Chunk] | Iterable[Chunk]) -> AsyncIterator[Chunk]:
    if hasattr(audio, "__aiter__"):
        async for chunk in audio:
            yield chunk
    else:
        for chunk in audio:
            yield chunk
            # There may be room for many, and others want to run too.
            await asyncio.sleep(0)


class _Call:
    """One call of a stream."""

    def __init__(
        self, stream: UnbrokenStream, queue: _Queue, channel: Any, metadata: Metadata, address: str
    ) -> None:
        self._stream = stream
        self._queue = queue
        self._address = address
        self._call = SpottingStub(channel).StreamingSpot(metadata=(*metadata, *stream.trace.metadata))
        self._given = _GivenStatus(self._call)
        self._sender = asyncio.create_task(_send(self._call, stream.begin(), stream.outbox, queue))
        self._responses = aiter(self._call)

    async def events(self) -> list[Event] | None:
        """Give what comes next; None at the end: the stream is done, or is to move to another call.

        Kinds of EarmarkError where the call broke, and what the caller's audio failed with.
        """
        stream = self._stream
        if stream.moving:
            return None
        try:
            async with asyncio.timeout(None if stream.answered else stream.answer_within_s):
                response = await anext(self._responses, None)
        except grpc.aio.AioRpcError as error:
            if stream.ended:
                return None
            failed = await self._given.instead_of(error)
            raise error_from_rpc(failed, self._address, answered=stream.answered) from error
        except TimeoutError:
            raise ServerUnreachableError(
                f"the server at {self._address} does not take the stream up"
            ) from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # gRPC's word for a call that this side ended: `_send`, for its audio failed, or `close`.
            raise stream.outbox.failure or ConnectionLostError(_CLOSED) from None
        if response is None:
            if stream.ended:
                return None
            raise ConnectionLostError(f"the server at {self._address} ended the call before the stream")
        if not stream.answered:
            stream.trace.take(await self._call.initial_metadata())
        events = list(stream.take(response))
        self._queue.look_for_room()
        return events

    async def end(self) -> None:
        """End the call, if it has not ended by itself."""
        self._call.cancel()
        self._sender.cancel()
        await asyncio.wait([self._sender])


async def _send(call: Any, first: messages.StreamRequest, outbox: Outbox, queue: _Queue) -> None:
    """Write the configuration and all the audio, each piece when there is room for it, and half-close.

    A call that has ended is the reader's affair; a failure of the audio's source cancels the call.
    """
    # A write to a call that has ended raises one of these two.
    with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        await call.write(first)
        while (audio := await queue.next()) is not None:
            await call.write(messages.audio_request(audio))
        if outbox.failure is not None:
            call.cancel()
            return
        await call.done_writing()


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
