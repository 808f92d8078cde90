"""One stream of the synchronous client: the thread that reads its audio, and its current call."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import grpc

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
    from collections.abc import Generator, Iterable, Iterator

    from earmark_client.audio import Chunk, Silence
    from earmark_client.channel_pool import ChannelPool
    from earmark_client.events import Event
    from earmark_client.resume import ResumableStream


def events(
    stream: ResumableStream,
    audio: Iterable[Chunk],
    *,
    pool: ChannelPool[grpc.Channel],
    closed: threading.Event,
) -> Generator[Event]:
    """Yield a stream's events, over any number of calls."""
    queue = _AudioQueue(stream)
    # A daemon thread: the source may block it, and must not keep the program from exiting.
    threading.Thread(target=queue.read_source, args=[audio], name="earmark-audio", daemon=True).start()
    try:
        while True:
            channel, reconnecting = pool.acquire(), None
            try:
                with closing(_call(stream, queue, channel, pool)) as call:
                    yield from call
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
                unused = pool.release(channel, discard=reconnecting is not None)
                if unused is not None:
                    unused.close()
            yield reconnecting
            if closed.wait(reconnecting.delay_s):
                raise client_closed()
    finally:
        queue.close()


class _AudioQueue:
    """Connects the thread that fills a replay buffer with gRPC's thread that sends its audio."""

    def __init__(self, stream: ResumableStream) -> None:
        self._stream = stream
        self._buffer = stream.replay_buffer
        self._changed = threading.Condition()
        self._closed = False

    def read_source(self, audio: Iterable[Chunk]) -> None:
        """Read the caller's audio, also while there is no connection; runs on its own thread."""
        source_error = None
        try:
            for chunk in audio:
                for piece in self._buffer.pieces(chunk):
                    self._wait_for_capacity()
                    with self._changed:
                        self._buffer.append(piece)
                        self._changed.notify_all()
                self._wait_for_capacity()
                if self._closed:
                    return
        except BaseException as error:  # SystemExit and CancelledError too: this thread ends with any of them
            source_error = error
        with self._changed:
            self._buffer.end(source_error)
            self._changed.notify_all()

    def close(self) -> None:
        """Stop reading the source."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _wait_for_capacity(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._buffer.has_capacity or self._closed)

    def begin_call(self) -> messages.StreamRequest:
        """Begin a call: return its first message."""
        with self._changed:
            return self._stream.begin_call()

    def consume(self, response: messages.StreamResponse) -> list[Event]:
        """Consume a response; return its new events."""
        with self._changed:
            new_events = list(self._stream.consume(response))
            self._changed.notify_all()
        return new_events

    def check_interval_s(self) -> float:
        """Return how often a call that waits for a response must call `may_wait`."""
        with self._changed:
            return self._stream.check_interval_s

    def may_wait(self, elapsed_s: float) -> bool:
        """Return whether a call may wait on for a response; `elapsed_s`: since it was last asked."""
        with self._changed:
            return self._stream.may_wait(elapsed_s)

    def next_message(self, requests: _Requests) -> bytes | Silence | None:
        """Wait for the next audio to send, None at the end of the source or of the call."""
        with self._changed:
            while not self._changed.wait_for(
                lambda: requests.call_ended or not self._buffer.all_sent or self._buffer.source_ended,
                KEEP_ALIVE_S,
            ):
                if not self._buffer.has_capacity:
                    return b""
            audio = None if requests.call_ended else self._buffer.next_message()
            self._changed.notify_all()
        return audio

    def end_call(self, requests: _Requests) -> None:
        """Send no more audio on a call that has ended."""
        with self._changed:
            requests.call_ended = True
            self._changed.notify_all()


class _Requests:
    """The requests of one call; gRPC iterates over them on its own thread.

    gRPC half-closes the call when the iterator ends.
    """

    def __init__(self, queue: _AudioQueue) -> None:
        self._queue = queue
        self._first = queue.begin_call()
        self.call_ended = False

    def __iter__(self) -> Iterator[messages.StreamRequest]:
        yield self._first
        while (audio := self._queue.next_message(self)) is not None:
            yield messages.audio_request(audio)


class _Watchdog:
    """Cancels a call whose server does not answer; it runs on its own thread."""

    def __init__(self, call: Any, queue: _AudioQueue) -> None:
        self._call, self._queue = call, queue
        self._ended = threading.Event()
        self.is_waiting = True
        """Whether the call waits for a response."""
        self.expired = False
        threading.Thread(target=self._run, name="earmark-watchdog", daemon=True).start()

    def stop(self) -> None:
        """Stop watching."""
        self._ended.set()

    def _run(self) -> None:
        checked_s = time.monotonic()
        while not self._ended.wait(self._queue.check_interval_s()):
            now_s = time.monotonic()
            if self.is_waiting and not self._queue.may_wait(now_s - checked_s):
                self.expired = True
                self._call.cancel()
                return
            checked_s = now_s


def _call(
    stream: ResumableStream, queue: _AudioQueue, channel: grpc.Channel, pool: ChannelPool[grpc.Channel]
) -> Generator[Event]:
    """Yield the events of one call; end when the stream is complete or must move."""
    requests = _Requests(queue)
    metadata = (*pool.call_metadata, *stream.trace.metadata)
    try:
        call = pool.stub(SpottingStub, channel).StreamingSpot(iter(requests), metadata=metadata)
    except ValueError:  # what gRPC raises if `close` has closed the channel since
        raise client_closed() from None
    watchdog = _Watchdog(call, queue)
    try:
        for response in call:
            if not stream.answered:
                stream.trace.read(call.initial_metadata())
            new_events = queue.consume(response)
            watchdog.is_waiting = False
            yield from new_events
            if stream.server_draining:
                return
            watchdog.is_waiting = True
        if not stream.ended:
            raise stream_incomplete(pool.target)
    except grpc.RpcError as error:
        if stream.ended:
            return
        if watchdog.expired:
            raise not_answered(pool.target, answered=stream.answered) from None
        raise error_from_rpc(error, pool.target, answered=stream.answered) from error
    finally:
        watchdog.stop()
        queue.end_call(requests)
        call.cancel()
