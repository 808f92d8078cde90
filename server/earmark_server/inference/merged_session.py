"""A stream with several models: one session with the events of all models, in the order of the audio.

Every model has a lane: a session of its own, which shares the audio. The events of a lane have the positions
at which they were decided, which depend on the audio alone. They are released in this order, and those at one
position in the order of the lanes. An event is released once no lane can add one that precedes it. That is
soon, because a detector knows the next position at which it can decide anything.

A Progress consists of a snapshot of each lane, between what was released of the lane and what was not. So the
lanes put snapshots between their events: at every interval, and after every detection. There is a Progress
when every lane has passed its interval, and no lane has released a detection since its last snapshot.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from earmark_spotter import Detection, offset_ns
from earmark_spotter.stream import stream_progress

from earmark_server.inference.events import Failed, Finished, Progress
from earmark_server.inference.session import SpottingSession

if TYPE_CHECKING:
    from collections.abc import Sequence

    from earmark_spotter.model import Float32Array
    from earmark_spotter.resume import ResumeState

    from earmark_server.inference.events import Event

_END_NS = 1 << 62


class _Snapshot(NamedTuple):
    """The state of a lane between two of its events; `is_due`: whether an interval of Progress has passed."""

    state: ResumeState
    is_due: bool


class MergedLane(SpottingSession):
    """One model of a stream with several. Its events wait in `items`, with their positions."""

    def __init__(self, *args: Any, **options: Any) -> None:
        """Start or resume, as a SpottingSession does."""
        super().__init__(*args, **options)
        self.part = self._state
        self.items: deque[tuple[int, Event | _Snapshot]] = deque()
        self.released: ResumeState | None = None
        """The state after the last item that was released; None after a detection, until there is one."""
        self.owes_progress = False
        """Whether the lane has passed an interval since the last Progress."""
        self.end: Finished | Failed | None = None
        self._needs_snapshot = False

    @property
    def next_ns(self) -> int:
        """The position of the first item, or if there is none the first one at which there may be another."""
        if self.items:
            return self.items[0][0]
        if self.end is not None:
            return _END_NS
        state, rate_hz = self._state, self.model.metadata.sample_rate_hz
        frame = min(self._next_score, state.earliest_decision_frame + 1, state.next_notice_frame)
        sample = frame * self._frame_samples
        if state.end_sample is not None:
            return offset_ns(min(sample, state.end_sample), rate_hz)
        # A problem of the audio may be found in any audio to come.
        return min(offset_ns(sample, rate_hz), state.received_ns + 1)

    @property
    def has_events(self) -> bool:
        """Whether events wait, and not only snapshots."""
        return any(not isinstance(item, _Snapshot) for _, item in self.items)

    def snapshot(self) -> ResumeState:
        """Return the state after the last item."""
        return self._state.snapshot()

    def _report(self, frame: int, scores: Float32Array, events: list[Event]) -> None:
        super()._report(frame, scores, events)
        self._keep(frame, events)

    def _append_progress(self, events: list[Event]) -> None:
        self._keep(self._frame, events)
        self.items.append((self._ns(self._frame), _Snapshot(self.snapshot(), is_due=True)))
        self._needs_snapshot = False

    def _end_run(self, events: list[Event]) -> list[Event]:
        super()._end_run(events)
        last = events[-1] if events else None
        if isinstance(last, Finished | Failed):
            self.end = last
            events.pop()
        self._keep(self._frame, events)
        return events

    def _keep(self, frame: int, events: list[Event]) -> None:
        """Move events to the items; `frame`: the one after them."""
        meta = self.model.metadata
        for event in events:
            if isinstance(event, Detection):
                position_ns = offset_ns(event.decided_sample, meta.sample_rate_hz)
                self.items.append((position_ns, dataclasses.replace(event, id=f"{meta.name}/{event.id}")))
                self._needs_snapshot = True
            else:
                self.items.append((self._ns(frame), event))
        events.clear()
        if self._needs_snapshot and frame % meta.frames_per_step == 0:
            self.items.append((self._ns(frame), _Snapshot(self.snapshot(), is_due=False)))
            self._needs_snapshot = False


class MergedSession:
    """Detects the keywords of several models in one stream."""

    def __init__(self, lanes: Sequence[MergedLane]) -> None:
        """`lanes`: at least one; all share the audio of the first one."""
        self.lanes = tuple(lanes)
        first = lanes[0]
        self.audio_format, self.pending, self.start_ns = first.audio_format, first.pending, first.start_ns
        self.processed_samples = 0
        self.due_samples = min(lane.due_samples for lane in lanes)

    @property
    def has_pending(self) -> bool:
        """Whether further steps may be ready without new input."""
        return any(lane.has_pending for lane in self.lanes)

    def collect(self, events: list[Event]) -> list[Event]:
        """Return the events that can be released now."""
        while (lane := min(self.lanes, key=_next_ns)).items:
            self._release(lane, events)
        self.processed_samples = min(lane.processed_samples for lane in self.lanes)
        # A snapshot, unlike an event, has time.
        is_urgent = any(lane.has_events for lane in self.lanes)
        self.due_samples = 0 if is_urgent else min(lane.due_samples for lane in self.lanes)
        if all(lane.end for lane in self.lanes):
            assert self.lanes[0].end is not None
            events.append(self.lanes[0].end)
        return events

    def progress(self) -> list[Event]:
        """Return the position, for a client that is to resume elsewhere, and all events before it."""
        events: list[Event] = []
        while waiting := [lane for lane in self.lanes if lane.items]:
            self._release(min(waiting, key=_next_ns), events)
        for lane in self.lanes:
            lane.released = lane.snapshot()
        return [*events, self._progress(draining=True)]

    def _release(self, lane: MergedLane, events: list[Event]) -> None:
        _, item = lane.items.popleft()
        if not isinstance(item, _Snapshot):
            if isinstance(item, Detection):
                lane.released = None
            events.append(item)
            return
        lane.released = item.state
        lane.owes_progress |= item.is_due
        if all(each.released and each.owes_progress for each in self.lanes):
            events.append(self._progress())
            for each in self.lanes:
                each.owes_progress = False

    def _progress(self, *, draining: bool = False) -> Progress:
        states = [lane.released for lane in self.lanes]
        parts = [lane.part for lane in self.lanes]
        return Progress(stream_progress(parts, [state for state in states if state]), draining=draining)


def _next_ns(lane: MergedLane) -> int:
    return lane.next_ns
