"""One stream of the synchronous client: the threads beside its reader, and the call that it is on."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from contextlib import closing
from typing import TYPE_CHECKING, Any

import grpc

from earmark_client import messages
from earmark_client.channel import SpottingStub
from earmark_client.errors import ConnectionLostError, EarmarkError, error_from_rpc

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator

    from earmark_client.audio import Chunk, Silence
    from earmark_client.channel import Line
    from earmark_client.credentials import Metadata
    from earmark_client.events import Event
    from earmark_client.resume import UnbrokenStream


def events(
    stream: UnbrokenStream, audio: Iterable[Chunk], *, line: Line, address: str, closed: threading.Event
) -> Generator[Event]:
    """Give a stream's events, over as many calls as it takes."""
    queue = _Queue(stream)
    # A daemon: what it may be blocked in cannot be interrupted, and must not hold up the program's end.
    threading.Thread(target=queue.feed, args=[audio], name="earmark-audio", daemon=True).start()
    try:
        while True:
            channel, pause = line.take(), None
            try:
                with closing(_call(stream, queue, channel, line.metadata, address)) as call:
                    yield from call
            except EarmarkError as error:
                if closed.is_set():
                    raise
                pause = stream.pause(error)
            else:
                if stream.ended:
                    return
                pause = stream.pause(None)
            finally:
                worn = line.give_back(channel, worn=pause is not None)
                if worn is not None:
                    worn.close()
            yield pause
            if closed.wait(pause.delay_s):
                raise ConnectionLostError("the client was closed in the middle of a stream")
    finally:
        queue.close()


class _Queue:
    """The stream's outbox, between the thread that takes the audio and the one that sends it."""

    def __init__(self, stream: UnbrokenStream) -> None:
        self._stream = stream
        self._outbox = stream.outbox
        self._changed = threading.Condition()
        self._closed = False

    def feed(self, audio: Iterable[Chunk]) -> None:
        """Take the caller's audio, also while there is no connection; on a thread of its own."""
        failure = None
        try:
            for chunk in audio:
                for piece in self._outbox.pieces(chunk):
                    self._wait_for_room()
                    with self._changed:
                        self._outbox.put(piece)
                        self._changed.notify_all()
                self._wait_for_room()
                if self._closed:
                    return
        except Exception as error:
            failure = error
        with self._changed:
            self._outbox.end(failure)
            self._changed.notify_all()

    def close(self) -> None:
        """Take no more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _wait_for_room(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._outbox.has_room or self._closed)

    def begin(self) -> messages.StreamRequest:
        """Begin a call: give its first message."""
        with self._changed:
            return self._stream.begin()

    def take(self, response: messages.StreamResponse) -> list[Event]:
        """Take what a call brought; give what of it is new."""
        with self._changed:
            events = list(self._stream.take(response))
            self._changed.notify_all()
        return events

    def next(self, requests: _Requests) -> bytes | Silence | None:
        """Wait for what is to be sent next; None at the end, or when the call has ended."""
        with self._changed:
            self._changed.wait_for(
                lambda: requests.over or not self._outbox.all_sent or self._outbox.over,
            )
            audio = None if requests.over else self._outbox.next()
            self._changed.notify_all()
        return audio

    def end(self, requests: _Requests) -> None:
        """Let a call that has ended have no more audio."""
        with self._changed:
            requests.over = True
            self._changed.notify_all()


class _Requests:
    """The requests of one call, iterated on gRPC's thread.

    gRPC takes an iterator's end for the end of the audio, so a failure of its source cancels the call
    first.
    """

    def __init__(self, stream: UnbrokenStream, queue: _Queue) -> None:
        self._stream = stream
        self._queue = queue
        self._first = queue.begin()
        self.over = False
        # gRPC begins to iterate before it has handed out the call.
        self.call: Future[Any] = Future()

    def __iter__(self) -> Iterator[messages.StreamRequest]:
        yield self._first
        while (audio := self._queue.next(self)) is not None:
            yield messages.audio_request(audio)
        if self._stream.outbox.failure is not None:
            self.call.result().cancel()


def _call(
    stream: UnbrokenStream, queue: _Queue, channel: Any, metadata: Metadata, address: str
) -> Generator[Event]:
    """Give what one call brings; it ends when the stream is done, or is to move to another call."""
    requests = _Requests(stream, queue)
    call = SpottingStub(channel).StreamingSpot(iter(requests), metadata=(*metadata, *stream.trace.metadata))
    requests.call.set_result(call)
    overdue: threading.Timer | None = None
    if stream.answer_within_s is not None:
        overdue = threading.Timer(stream.answer_within_s, call.cancel)
        overdue.daemon = True
        overdue.start()
    try:
        for response in call:
            if overdue is not None:
                overdue.cancel()
            if not stream.answered:
                stream.trace.take(call.initial_metadata())
            yield from queue.take(response)
            if stream.moving:
                return
        if not stream.ended:
            raise ConnectionLostError(f"the server at {address} ended the call before the stream")
    except grpc.RpcError as error:
        if stream.ended:
            return
        if stream.outbox.failure is not None and error.code() is grpc.StatusCode.CANCELLED:
            raise stream.outbox.failure from None
        raise error_from_rpc(error, address, answered=stream.answered) from error
    finally:
        if overdue is not None:
            overdue.cancel()
        queue.end(requests)
        call.cancel()
