"""Sessions: the engine's side of one call, from pending audio through steps of the model to events.

Everything in a session runs on the engine's thread, decoding included. The event loop only appends to the
pending audio and receives the events.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from earmark_spotter import ClipClassifier, StreamState, offset_ns
from earmark_spotter.stream import NANOSECONDS

from earmark_server.inference.events import ClipScores, Finished, Progress, Scores
from earmark_server.inference.pending_audio import PendingAudio

if TYPE_CHECKING:
    from collections.abc import Sequence

    from earmark_spotter import ActiveKeyword, AudioFormat, ResumePoint, SpotterModel
    from earmark_spotter.model import Float32Array

    from earmark_server.inference.events import Event
    from earmark_server.inference.pending_audio import Input

# Upper bound on the audio that waits for the next inference, regardless of the model's peak hold.
_MAX_WAIT_NS = NANOSECONDS * 2 // 5

_NEVER = 1 << 62


class InputQueue(Protocol):
    """The event loop's view of a session's pending audio."""

    def __len__(self) -> int:
        """Return the number of items."""

    def append(self, item: Input, /) -> None:
        """Add the next item."""


class Session(Protocol):
    """The operations that the engine needs of a call."""

    model: SpotterModel
    processed_ns: int
    """Audio of this call that the model has processed; it only grows."""
    due_ns: int
    """Audio of this call that must have arrived before inference can produce an event."""

    @property
    def pending(self) -> InputQueue:
        """Input that is not decoded yet: the event loop appends to it, `prepare` removes from it."""

    @property
    def has_pending(self) -> bool:
        """Whether further steps may be ready without new input."""

    def prepare(self, limit_s: float) -> int:
        """Decode pending audio; return the number of steps to run now, at most about `limit_s` of audio.

        0 means that more input is needed.
        """

    def consume(self, steps: int) -> Float32Array:
        """Remove and return the samples of the next steps, [steps * step_samples]."""

    def apply(self, scores: Float32Array) -> list[Event]:
        """Process the scores of the consumed steps, [frames, classes]; return the events."""

    def progress(self) -> Progress | None:
        """Return the position, for a client that is to resume elsewhere; None if the call cannot resume."""


class SpottingSession:
    """Detects keywords in one stream, and reports scores and progress at the requested intervals."""

    def __init__(
        self,
        model: SpotterModel,
        audio_format: AudioFormat,
        active: Sequence[ActiveKeyword],
        *,
        resume: ResumePoint | None = None,
        resume_keys: Sequence[bytes] = (),
        score_interval_ns: int | None = None,
        progress_interval_ns: int | None = None,
    ) -> None:
        """Start a stream, or resume a broken one; ResumeError for a resume point that does not fit."""
        self.model = model
        self.processed_ns = 0
        self.start_ns = 0 if resume is None else resume.start_offset_ns
        """The offset in the stream at which the audio of this call begins."""
        self._state = StreamState(model, audio_format, active, resume, resume_keys)
        self.pending = PendingAudio(self._state, model, audio_format)
        self.prepare = self.pending.decode
        self.consume = self._state.consume

        self._frame_samples = model.metadata.frame_samples
        self._rate_hz = model.metadata.sample_rate_hz
        self._start_frame = self._frame
        self._score_frames = self._frames_of_interval(score_interval_ns)
        self._progress_frames = self._frames_of_interval(progress_interval_ns)
        # Reports on the replayed audio before the resume point were sent in the call that broke.
        first = self._state.next_new_frame
        self._next_score = self._next_multiple(first, self._score_frames)
        self._next_progress = self._next_multiple(first, self._progress_frames)
        self.due_ns = self._find_due_ns()

    @property
    def has_pending(self) -> bool:
        """Whether further steps may be ready without new input."""
        return len(self.pending) > 0 or self._state.ready_steps > 0

    @property
    def _frame(self) -> int:
        return self._state.next_sample // self._frame_samples

    def apply(self, scores: Float32Array) -> list[Event]:
        """Process the scores; return the events in an order that depends on the audio alone."""
        events: list[Event] = []
        frame = self._frame
        while len(scores):
            part = scores[: min(self._next_score, self._next_progress) - frame]
            events += self._state.apply(part)
            frame += len(part)
            self._report(frame, part, events)
            scores = scores[len(part) :]
        self.processed_ns = self._ns(frame - self._start_frame)
        self.due_ns = self._find_due_ns()
        if self._state.finished:
            events.append(Finished(self._state.received_ns))
        return events

    def progress(self) -> Progress:
        """Return the position, for a client that is to resume elsewhere."""
        return Progress(self._state.progress(), draining=True)

    def _find_due_ns(self) -> int:
        # Progress is not urgent: it is sent with whatever is processed next.
        frame = min(self._state.next_decision_frame + 1, self._next_score)
        return min(self._ns(frame - self._start_frame), self.processed_ns + _MAX_WAIT_NS)

    def _report(self, frame: int, scores: Float32Array, events: list[Event]) -> None:
        # Frames beyond the end of the audio only complete its last keyword: they are not reported.
        if frame == self._next_score:
            self._next_score += self._score_frames
            if self._ns(frame) <= self._state.received_ns:
                events.append(Scores(self._ns(frame), scores[-1].copy()))
        if frame == self._next_progress:
            self._next_progress += self._progress_frames
            if self._ns(frame) <= self._state.received_ns:
                events.append(Progress(self._state.progress()))

    def _ns(self, frames: int) -> int:
        return offset_ns(frames * self._frame_samples, self._rate_hz)

    def _frames_of_interval(self, interval_ns: int | None) -> int:
        """Convert an interval to frames, rounded up to whole steps of the model; 0 for none."""
        if interval_ns is None:
            return 0
        step = self.model.metadata.step_samples
        steps = max(1, -(-interval_ns * self._rate_hz // (step * NANOSECONDS)))
        return steps * self.model.metadata.frames_per_step

    @staticmethod
    def _next_multiple(first: int, interval: int) -> int:
        """Return the first multiple of an interval after frame `first`; never for an interval of 0."""
        return (first // interval + 1) * interval if interval else _NEVER


class ClassificationSession:
    """Scores every class on one clip."""

    def __init__(
        self, model: SpotterModel, audio_format: AudioFormat, active: Sequence[ActiveKeyword]
    ) -> None:
        """Start a clip; `active`: all keywords of the model."""
        self.model = model
        self.processed_ns = 0
        self.due_ns = 0  # the only event comes at the end, but a clip arrives as a whole
        self._state = StreamState(model, audio_format, active)
        self.pending = PendingAudio(self._state, model, audio_format)
        self.prepare = self.pending.decode
        self.consume = self._state.consume
        self._classifier = ClipClassifier.for_model(model)

    @property
    def has_pending(self) -> bool:
        """Whether further steps may be ready without new input."""
        return len(self.pending) > 0 or self._state.ready_steps > 0

    def apply(self, scores: Float32Array) -> list[Event]:
        """Process the scores; return the clip's scores after the last step, and nothing before."""
        self._state.apply(scores)
        self.processed_ns = offset_ns(self._state.next_sample, self.model.metadata.sample_rate_hz)
        self._classifier.push(scores)
        if not self._state.finished:
            return []
        return [ClipScores(self._classifier.scores, self._state.received_ns)]

    def progress(self) -> None:
        """Return None: a clip is sent again as a whole."""
