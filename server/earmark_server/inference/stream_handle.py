"""The stream handle: how a call, on the event loop, sends audio to the engine and receives events from it."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np
from earmark_spotter import offset_ns
from earmark_spotter.sample_time import NANOSECONDS

from earmark_server.inference.events import Failed
from earmark_server.inference.pace import Pace
from earmark_server.inference.pending_audio import End, Silence

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from earmark_server.inference.events import Event
    from earmark_server.inference.pending_audio import Input
    from earmark_server.inference.session import Session

# Messages of one stream that may wait to be decoded together, however short they are.
_MAX_PENDING_MESSAGES = 64

# A stream that holds no more than this is not affected by the bytes that other streams hold.
_SMALL_BYTES = 64 * 1024


class StreamOwner(Protocol):
    """The operations that a handle needs of the engine, all on the event loop; none of them blocks."""

    @property
    def has_byte_capacity(self) -> bool:
        """Whether the pending audio of all streams occupies less memory than it may."""

    def add_pending_bytes(self, count: int) -> None:
        """Count bytes of audio that a stream holds from now on."""

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

    The engine's thread reads the public fields, and writes none of them but `is_notified`, which it resets.
    A value that it reads may be a moment old, which only delays its decision: the event loop notifies it
    again.

    The length of the audio is a count of samples. The bytes of a split sample count when the rest of it
    arrives. So the handle and the session count the same.
    """

    def __init__(self, owner: StreamOwner, session: Session, max_pending_ns: int, client: str) -> None:
        self.session = session
        self.client = client
        self.pace = Pace()
        self.sent_samples = 0
        """Audio sent in this call, in samples at its own rate."""
        self.sent_bytes = 0
        """Memory of all audio sent in this call, whether it is still pending or not."""
        self.has_ended = False
        """Whether all audio was sent."""
        self.consumed_events = 0
        """Events that the call has dealt with."""
        self.is_notified = False
        """Whether the stream is among the notifications to the engine; see `Notifications`."""
        self.notified_s = 0.0
        self._owner = owner
        self._rate_hz = session.audio_format.sample_rate_hz
        self._frame_bytes = session.audio_format.frame_bytes
        self._split_bytes = 0  # of the last sample
        self._max_pending_samples = max_pending_ns * self._rate_hz // NANOSECONDS
        self._is_closed = False
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
        return self.pending_samples > self._max_pending_samples or not self._may_hold_more

    @property
    def has_capacity(self) -> bool:
        """Whether reading may go on: well below `at_capacity`, so that the two do not alternate quickly."""
        return self.pending_samples <= self._max_pending_samples // 2 and self._may_hold_more

    @property
    def pending_samples(self) -> int:
        """Audio that was sent and is not processed yet."""
        return self.sent_samples - self.session.processed_samples

    @property
    def pending_bytes(self) -> int:
        """Memory of the audio that is not decoded yet. A message counts until all of it is decoded."""
        return self.sent_bytes - self.session.pending.released_bytes

    @property
    def sent_ns(self) -> int:
        """Audio sent in this call, in nanoseconds."""
        return offset_ns(self.sent_samples, self._rate_hz)

    @property
    def _may_hold_more(self) -> bool:
        return self._owner.has_byte_capacity or self.pending_bytes <= _SMALL_BYTES

    @property
    def is_due(self) -> bool:
        """Whether inference on the audio sent so far can produce an event, or should wait no longer."""
        return self.sent_samples >= self.session.due_samples or not self.may_wait

    @property
    def may_wait(self) -> bool:
        """Whether more audio may be expected before that is processed which was sent so far."""
        return not self.has_ended and len(self.session.pending) < _MAX_PENDING_MESSAGES

    def samples_with(self, item: Input) -> int:
        """Return the length of the audio sent in this call together with `item`, in samples."""
        return self.sent_samples + self._measure(item)[0]

    def first_part(self, item: bytes | Silence, samples: int) -> bytes | Silence:
        """Return the first part of an item: up to a total of `samples` in this call."""
        missing = max(0, samples - self.sent_samples)
        if isinstance(item, Silence):
            return Silence(missing)
        return item[: max(0, missing * self._frame_bytes - self._split_bytes)]

    def send(self, item: Input) -> None:
        """Send the next input to the engine, or nothing if the handle is closed."""
        if self._is_closed:
            return
        self.session.pending.append(item)
        samples, size, self._split_bytes = self._measure(item)
        self.sent_samples += samples
        self.sent_bytes += size
        self._owner.add_pending_bytes(size)
        if not self.is_notified and self.is_due:
            self._owner.notify(self)

    def end(self, *, early: bool = False) -> None:
        """Declare that no more audio will come; `early`: because of an error, so within a sample too."""
        self.has_ended = True
        self.send(End.EARLY if early else End.OF_AUDIO)

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
        self._is_closed = True
        self._owner.close_stream(self)

    def deliver(self, events: Iterable[Event], *, parked: bool, has_capacity: bool) -> None:
        """Receive results from the engine.

        `parked`: the engine waits until the call has read its events. `has_capacity`: more audio may be sent.
        """
        self._events.extend(events)
        self._is_parked = self._is_parked or parked
        if self._events:
            self._wake()
        elif not self._handed_out:
            self._unpark()
        freed = self._capacity_freed
        if has_capacity and freed is not None and not freed.done():
            freed.set_result(None)

    def _measure(self, item: Input) -> tuple[int, int, int]:
        """Return the samples and the bytes of an item, and the bytes of a sample that is split at its end."""
        if isinstance(item, bytes):
            samples, split_bytes = divmod(self._split_bytes + len(item), self._frame_bytes)
            return samples, len(item), split_bytes
        if isinstance(item, np.ndarray):
            return len(item), item.nbytes, self._split_bytes
        return item.samples if isinstance(item, Silence) else 0, 0, self._split_bytes

    def _unpark(self) -> None:
        if self._is_parked:
            self._is_parked = False
            self._owner.resume_inference(self)

    def _wake(self) -> None:
        if self._event_arrived is not None and not self._event_arrived.done():
            self._event_arrived.set_result(None)
