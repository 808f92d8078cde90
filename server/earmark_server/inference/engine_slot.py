"""The engine slot: the side of a stream that belongs to the engine's thread."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from earmark_server.inference.session import Lane
    from earmark_server.inference.stream_handle import StreamHandle


class EngineSlot:
    """A stream's place in the engine. It belongs to the engine's thread, which alone reads and writes it."""

    __slots__ = (
        "handle",
        "has_failed",
        "is_parked",
        "is_queued",
        "made_events",
        "queued_s",
        "released_bytes",
        "rows",
        "session",
        "wants_capacity",
    )

    def __init__(self, handle: StreamHandle, rows: Sequence[int]) -> None:
        self.handle = handle
        self.session = handle.session
        self.rows = rows
        """The row of each lane in the state pool of its model; none once the stream is closed."""
        self.is_queued = False
        self.queued_s = 0.0
        self.is_parked = False
        """Whether inference waits until the call has read its events."""
        self.has_failed = False
        self.wants_capacity = False
        """Whether the call waits for capacity."""
        self.made_events = 0
        self.released_bytes = 0

    @property
    def can_run(self) -> bool:
        """Whether the stream may be processed at all."""
        return len(self.rows) > 0 and not self.is_parked and not self.has_failed

    @property
    def is_due(self) -> bool:
        """Whether the stream should be queued for inference now."""
        return (self.handle.is_due or self.wants_capacity) and self.session.has_pending

    def due_lanes(self) -> Iterator[tuple[EngineSlot, Lane, int]]:
        """Yield the lanes to run now, each with its slot and row; the others may wait for more audio."""
        handle, session = self.handle, self.session
        # At 0, an event of one lane waits until the others have processed as much audio.
        all_lanes = self.wants_capacity or not handle.may_wait or session.due_samples == 0
        for lane, row in zip(session.lanes, self.rows, strict=True):
            if all_lanes or len(self.rows) == 1 or handle.sent_samples >= lane.due_samples:
                yield self, lane, row

    def lanes_with(self, seconds: float) -> Iterator[tuple[EngineSlot, Lane, int]]:
        """Yield the lanes with this much audio that is not processed, if the stream is live."""
        sent_samples, samples = self.handle.sent_samples, seconds * self.session.audio_format.sample_rate_hz
        if self.handle.pace.is_live:
            for lane, row in zip(self.session.lanes, self.rows, strict=True):
                if sent_samples - lane.processed_samples >= samples:
                    yield self, lane, row

    @property
    def frees_capacity(self) -> bool:
        """Whether the call waits for capacity and there is some. An idle stream always has capacity."""
        return self.wants_capacity and (self.handle.has_capacity or not self.session.has_pending)

    def update_pace(self, now_s: float) -> bool:
        """Update the stream's pace; return whether it is live."""
        handle, rate_hz = self.handle, self.session.audio_format.sample_rate_hz
        sent_s, pending_s = handle.sent_samples / rate_hz, handle.pending_samples / rate_hz
        handle.pace.update(now_s, sent_s, pending_s, has_ended=handle.has_ended)
        return handle.pace.is_live
