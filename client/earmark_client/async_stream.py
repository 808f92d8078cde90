"""One stream of the asynchronous client: the task that reads its audio, and its current call."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import grpc.aio

from earmark_client import messages
from earmark_client.channel_pool import SpottingStub
from earmark_client.errors import (
    EarmarkError,
    client_closed,
    error_from_rpc,
    not_answered,
    stream_incomplete,
)
from earmark_client.replay_buffer import KEEP_ALIVE_S

if TYPE_CHECKING:
    from collections.abc import (
        AsyncGenerator,
        AsyncIterable,
        AsyncIterator,
        Callable,
        Coroutine,
        Iterable,
        Iterator,
    )

    from earmark_client.audio import Chunk, Silence
    from earmark_client.channel_pool import ChannelPool
    from earmark_client.events import Event
    from earmark_client.replay_buffer import ReplayBuffer
    from earmark_client.resume import ResumableStream


async def events(
    stream: ResumableStream,
    audio: AsyncIterable[Chunk] | Iterable[Chunk],
    *,
    pool: ChannelPool[grpc.aio.Channel],
    bind: Callable[[], asyncio.Event],
) -> AsyncGenerator[Event]:
    """Yield a stream's events, over any number of calls.

    `bind` makes the pool use the running event loop, and returns the event that is set when the client is
    closed. The loop is known only here: a stream may be made before its loop runs.
    """
    closed = bind()
    queue = _AudioQueue(stream.replay_buffer)
    reader = asyncio.create_task(_read_source(queue, audio))
    try:
        while True:
            channel, reconnecting = pool.acquire(), None
            call = _Call(stream, queue, channel, pool)
            try:
                while (new_events := await call.next_events()) is not None:
                    for event in new_events:
                        yield event
            except EarmarkError as error:
                if closed.is_set():
                    raise client_closed() from error
                reconnecting = stream.next_attempt(error)
            else:
                if stream.ended:
                    stream.raise_source_error()
                    return
                reconnecting = stream.next_attempt(None)
            finally:
                try:
                    await call.end()
                finally:  # also if the caller's task is cancelled once more meanwhile
                    unused = pool.release(channel, discard=reconnecting is not None)
                    if unused is not None:
                        await unused.close()
            yield reconnecting
            with suppress(TimeoutError):
                await asyncio.wait_for(closed.wait(), reconnecting.delay_s)
                raise client_closed()
    finally:
        reader.cancel()
        await asyncio.wait([reader])


class _AudioQueue:
    """Connects the task that fills a replay buffer with the one that sends its audio."""

    def __init__(self, buffer: ReplayBuffer) -> None:
        self._buffer = buffer
        self._appended, self._consumed = asyncio.Event(), asyncio.Event()

    async def append(self, chunk: Chunk) -> None:
        """Append a chunk, and wait until there is capacity for the next."""
        for piece in self._buffer.pieces(chunk):
            await self.wait_for_capacity()
            self._buffer.append(piece)
            self._appended.set()
        await self.wait_for_capacity()

    async def wait_for_capacity(self) -> None:
        """Wait until the buffer has capacity."""
        while not self._buffer.has_capacity:
            self._consumed.clear()
            await self._consumed.wait()

    def end(self, error: BaseException | None = None) -> None:
        """Mark the source as ended."""
        self._buffer.end(error)
        self._appended.set()

    async def next_message(self) -> bytes | Silence | None:
        """Wait for the next audio to send, None at the end of the source."""
        while (audio := self._buffer.next_message()) is None and not self._buffer.source_ended:
            self._appended.clear()
            try:
                async with asyncio.timeout(KEEP_ALIVE_S):
                    await self._appended.wait()
            except TimeoutError:
                if not self._buffer.has_capacity:
                    return b""
        self._consumed.set()
        return audio

    def notify_consumed(self) -> None:
        """Notify the source that the buffer may have discarded audio."""
        self._consumed.set()


async def _read_source(queue: _AudioQueue, audio: AsyncIterable[Chunk] | Iterable[Chunk]) -> None:
    """Read the caller's audio into the queue, also while there is no connection."""
    try:
        async for chunk in async_chunks(audio):
            await queue.append(chunk)
    except (asyncio.CancelledError, KeyboardInterrupt, SystemExit):
        raise  # the stream was closed, or the event loop ends
    except BaseException as error:  # such as those with which test frameworks fail or skip a test
        queue.end(error)
    else:
        queue.end()


async def async_chunks(audio: AsyncIterable[Chunk] | Iterable[Chunk]) -> AsyncIterator[Chunk]:
    """Iterate over chunks; between those of an iterable that is not asynchronous, other tasks run.

    Raises EarmarkError if the iterable ends because something that it awaits was cancelled.
    """
    try:
        if hasattr(audio, "__aiter__"):
            async for chunk in audio:
                yield chunk
        else:
            for chunk in audio:
                yield chunk
                # The queue may have capacity for many chunks, and other tasks must run in between.
                await asyncio.sleep(0)
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        # As it is, it would end this task as if the stream had been closed, and the caller would wait on.
        raise EarmarkError("the source of the audio was cancelled, but not by the stream") from error


class _Call:
    """One call of a stream."""

    def __init__(
        self,
        stream: ResumableStream,
        queue: _AudioQueue,
        channel: grpc.aio.Channel,
        pool: ChannelPool[grpc.aio.Channel],
    ) -> None:
        self._stream = stream
        self._queue = queue
        self._address = pool.target
        metadata = (*pool.call_metadata, *stream.trace.metadata)
        self._call = SpottingStub(channel).StreamingSpot(metadata=metadata)
        self._status = _ServerStatus(self._call)
        self._watchdog = _Watchdog(self._call, stream)
        self._sender = asyncio.create_task(_send(self._call, stream.begin_call(), queue))
        self._responses = aiter(self._call)

    async def next_events(self) -> list[Event] | None:
        """Return the events of the next response, None if the stream is complete or must move.

        Raises an EarmarkError if the call broke.
        """
        stream = self._stream
        if stream.server_draining:
            return None
        try:
            with self._watchdog.waiting():
                response = await anext(self._responses, None)
        except grpc.aio.AioRpcError as error:
            if stream.ended:
                return None
            sent = await self._status.of(error)
            if sent.code() is grpc.StatusCode.OK:
                raise stream_incomplete(self._address) from None
            raise error_from_rpc(sent, self._address, answered=stream.answered) from error
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            if stream.ended:
                return None
            if self._watchdog.expired:
                raise not_answered(self._address, answered=stream.answered) from None
            raise client_closed() from None  # `Client.close` ended the call
        if response is None:
            if stream.ended:
                return None
            raise stream_incomplete(self._address)
        if not stream.answered:
            stream.trace.read(await self._call.initial_metadata())
        new_events = list(stream.consume(response))
        self._queue.notify_consumed()
        return new_events

    async def end(self) -> None:
        """End the call if it has not ended."""
        self._watchdog.stop()
        self._call.cancel()
        self._sender.cancel()
        await asyncio.wait([self._sender])


class _Watchdog:
    """Cancels a call whose server does not answer."""

    def __init__(self, call: Any, stream: ResumableStream) -> None:
        self._call, self._stream = call, stream
        self._loop = asyncio.get_running_loop()
        self._is_waiting = False
        self.expired = False
        self._schedule()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time of the block, in which the call waits for a response."""
        self._is_waiting = True
        try:
            yield
        finally:
            self._is_waiting = False

    def stop(self) -> None:
        """Stop watching."""
        self._timer.cancel()

    def _schedule(self) -> None:
        self._checked_s = self._loop.time()
        self._timer = self._loop.call_later(self._stream.check_interval_s, self._check)

    def _check(self) -> None:
        if self._is_waiting and not self._stream.may_wait(self._loop.time() - self._checked_s):
            self.expired = True
            self._call.cancel()
            return
        self._schedule()


async def _send(call: Any, first: messages.StreamRequest, queue: _AudioQueue) -> None:
    """Write the configuration and all audio as flow control permits, then half-close.

    Ignores that the call has ended, which the reader of its responses reports. If the source of the audio
    fails, what came before is complete all the same.
    """
    # A write to a call that has ended raises one of these two.
    with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        await call.write(first)
        while (audio := await queue.next_message()) is not None:
            await call.write(messages.audio_request(audio))
        await call.done_writing()


class _ServerStatus:
    """The status that the server sent for a call.

    grpc.aio replaces it with INTERNAL if a write fails because the call has just ended
    (https://github.com/grpc/grpc/issues/36066), and the reason of a rejection would be lost.
    """

    _REPLACEMENT = "Internal error from Core"

    def __init__(self, call: Any) -> None:
        self._error: grpc.aio.AioRpcError | None = None
        self._known = asyncio.Event()
        call.add_done_callback(self._store)

    async def of(self, error: grpc.aio.AioRpcError) -> grpc.aio.AioRpcError:
        """Return the error that the server sent, where gRPC has replaced it by `error`; else `error`."""
        if error.details() != self._REPLACEMENT:
            return error
        with suppress(TimeoutError):
            # If the server's status has not arrived yet, it is about to.
            await asyncio.wait_for(self._known.wait(), 1.0)
        return self._error or error

    def _store(self, call: Any) -> None:
        # gRPC calls this once for each status. After the call these coroutines never wait.
        details = _result(call.details())
        if details != self._REPLACEMENT:
            self._error = grpc.aio.AioRpcError(
                _result(call.code()), grpc.aio.Metadata(), _result(call.trailing_metadata()), details
            )
            self._known.set()


def _result(finished: Coroutine[Any, Any, Any]) -> Any:
    """Return the result of a coroutine that has nothing to wait for."""
    try:
        finished.send(None)
    except StopIteration as stop:
        return stop.value
    finished.close()
    raise RuntimeError("a call that has ended has no status")
