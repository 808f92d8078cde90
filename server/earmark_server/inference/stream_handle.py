"""The stream handle: how a call, on the event loop, sends audio to the engine and receives events from it."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Protocol, Self

from earmark_server.inference.events import Failed
from earmark_server.inference.pace import Pace
from earmark_server.inference.pending_audio import End

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from earmark_server.inference.events import Event
    from earmark_server.inference.pending_audio import Input
    from earmark_server.inference.session import Session

# Messages of one stream that may wait to be decoded together, however short they are.
_MAX_PENDING_MESSAGES = 64


class StreamOwner(Protocol):
    """The operations that a handle needs of the engine, all on the event loop; none of them blocks."""

    def notify(self, handle: StreamHandle) -> None:
        """Announce that the stream's audio is due for inference."""

    def request_capacity(self, handle: StreamHandle) -> None:
        """Ask for a `deliver` as soon as the stream has capacity."""

    def request_progress(self, handle: StreamHandle) -> None:
        """Ask for a Progress event."""

    def resume_inference(self, handle: StreamHandle) -> None:
        """Resume a stream that was parked because its events were not read."""

    def close_stream(self, handle: StreamHandle) -> None:
        """Release the stream's slot."""


class StreamHandle:
    """One call's access to the engine, for the event loop only; closed at the end of its `with` block.

    The engine's thread reads `sent_ns`, `has_ended` and `consumed_events`, and writes none of the handle's
    fields but `is_notified`, which it resets. A value that it reads may be a moment old, which only delays
    its decision: the event loop notifies it again.
    """

    def __init__(self, owner: StreamOwner, session: Session, max_pending_ns: int) -> None:
        self.session = session
        self.pace = Pace()
        self.sent_ns = 0
        """Audio sent in this call."""
        self.has_ended = False
        """Whether all audio was sent."""
        self.consumed_events = 0
        """Events that the call has dealt with."""
        self.is_notified = False
        """Whether the stream is among the notifications to the engine; see `Notifications`."""
        self.notified_s = 0.0
        self._owner = owner
        self._max_pending_ns = max_pending_ns
        self._events: deque[Event] = deque()
        self._handed_out = 0  # events returned by `events` that may still be in use
        self._is_parked = False
        self._event_arrived: asyncio.Future[None] | None = None
        self._capacity_freed: asyncio.Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def at_capacity(self) -> bool:
        """Whether so much audio is pending that no more should be read from the client."""
        return self.sent_ns - self.session.processed_ns > self._max_pending_ns

    @property
    def has_capacity(self) -> bool:
        """Whether reading may go on: well below `at_capacity`, so that the two do not alternate quickly."""
        return self.sent_ns - self.session.processed_ns <= self._max_pending_ns // 2

    @property
    def is_due(self) -> bool:
        """Whether inference on the audio sent so far can produce an event, or should wait no longer."""
        session = self.session
        return (
            self.sent_ns >= session.due_ns or self.has_ended or len(session.pending) >= _MAX_PENDING_MESSAGES
        )

    def send(self, item: Input, duration_ns: int = 0) -> None:
        """Send the next input to the engine; `duration_ns`: how much audio it is."""
        self.session.pending.append(item)
        self.sent_ns += duration_ns
        if not self.is_notified and self.is_due:
            self._owner.notify(self)

    def end(self) -> None:
        """Declare that no more audio will come."""
        self.has_ended = True
        self.send(End.OF_AUDIO)

    async def wait_for_capacity(self) -> None:
        """Wait until more audio may be sent."""
        self._capacity_freed = asyncio.get_running_loop().create_future()
        self._owner.request_capacity(self)
        try:
            await self._capacity_freed
        finally:
            self._capacity_freed = None

    async def events(self) -> Sequence[Event]:
        """Wait for the next events and return them. The call acknowledges those returned before."""
        self.consumed_events += self._handed_out
        self._handed_out = 0
        while not self._events:
            self._unpark()
            self._event_arrived = asyncio.get_running_loop().create_future()
            await self._event_arrived
        events = list(self._events)
        self._events.clear()
        self._handed_out = sum(not isinstance(event, Failed) for event in events)
        return events

    def fail(self, error: Exception) -> None:
        """Append an error to the events, after those that are there already."""
        self._events.append(Failed(error))
        self._wake()

    def request_progress(self) -> None:
        """Request a Progress event with `draining` set, because the client has to move to another server."""
        self._owner.request_progress(self)

    def close(self) -> None:
        """Release the stream's slot and discard pending audio."""
        self._owner.close_stream(self)

    def deliver(self, events: Iterable[Event], *, parked: bool) -> None:
        """Receive results from the engine; `parked`: it waits until the call has read its events."""
        self._events.extend(events)
        self._is_parked = self._is_parked or parked
        if self._events:
            self._wake()
        elif not self._handed_out:
            self._unpark()
        freed = self._capacity_freed
        if freed is not None and not freed.done() and self.has_capacity:
            freed.set_result(None)

    def _unpark(self) -> None:
        if self._is_parked:
            self._is_parked = False
            self._owner.resume_inference(self)

    def _wake(self) -> None:
        if self._event_arrived is not None and not self._event_arrived.done():
            self._event_arrived.set_result(None)
