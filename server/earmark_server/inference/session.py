"""Sessions: the engine's side of one call, from pending audio through steps of the model to events.

Everything in a session runs on the engine's thread, decoding included. The event loop only appends to the
pending audio and receives the events.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self

from earmark_spotter import ClipClassifier, StreamState, offset_ns
from earmark_spotter.sample_time import NANOSECONDS
from earmark_spotter.stream import NO_FRAME

from earmark_server.inference.events import ClipScores, Failed, Finished, Progress, Scores
from earmark_server.inference.pending_audio import PendingAudio

if TYPE_CHECKING:
    from collections.abc import Sequence

    from earmark_spotter import ActiveKeyword, AudioFormat, ResumePoint, SpotterModel
    from earmark_spotter.model import Float32Array

    from earmark_server.inference.events import Event
    from earmark_server.inference.pending_audio import Input

# Upper bound on the audio that waits for the next inference, regardless of the model's peak hold.
_MAX_WAIT_S = 0.4

# Steps of silence whose scores are generated at once, where they are needed.
_MAX_QUIET_STEPS = 50

_NEVER = 1 << 62


class InputQueue(Protocol):
    """The event loop's view of a session's pending audio."""

    @property
    def released_bytes(self) -> int:
        """Bytes of all items that are decoded completely."""

    def __len__(self) -> int:
        """Return the number of items."""

    def append(self, item: Input, /) -> None:
        """Add the next item."""

    def clear(self) -> None:
        """Discard all items."""


class Lane(Protocol):
    """The operations that the engine needs of one model of a call."""

    model: SpotterModel
    # As of a session.
    processed_samples: int
    due_samples: int

    def prepare(self, limit_s: float) -> int:
        """Decode pending audio; return for how many steps to run the model now, about `limit_s` at most.

        0 means that more input is needed, or that the next steps are quiet.
        """

    @property
    def is_quiet(self) -> bool:
        """Whether the next steps need no inference, because they follow a receptive field of silence."""

    def skip_quiet(self) -> list[Event]:
        """Process quiet steps without inference."""

    @property
    def starts_from_initial_state(self) -> bool:
        """Whether the model has to process the next step from its initial state."""

    def consume(self, steps: int) -> Float32Array:
        """Remove and return the samples of the next steps, [steps * step_samples]."""

    def apply(self, scores: Float32Array) -> list[Event]:
        """Process the scores of the consumed steps, [frames, classes]; return the events."""


class Session(Protocol):
    """The operations that the engine needs of a call."""

    audio_format: AudioFormat
    # Positions are sample counts at the rate of the call's audio, from the start of that audio.
    processed_samples: int
    """Audio that is processed; it only grows."""
    due_samples: int
    """Audio that must have arrived before inference can produce an event."""

    @property
    def lanes(self) -> Sequence[Lane]:
        """The models of the call. They always stay the same."""

    @property
    def pending(self) -> InputQueue:
        """Input that is not decoded yet: the event loop appends to it, `prepare` removes from it."""

    @property
    def has_pending(self) -> bool:
        """Whether further steps may be ready without new input."""

    def collect(self, events: list[Event]) -> list[Event]:
        """Return the events for the call, after a lane has returned `events`."""

    def progress(self) -> list[Event]:
        """Return the position, for a client that is to resume elsewhere, and the events that precede it.

        Nothing if the call cannot resume.
        """


class _AudioSession:
    """The input side that all sessions share."""

    def __init__(
        self,
        model: SpotterModel,
        audio_format: AudioFormat,
        state: StreamState,
        pending: PendingAudio | None = None,
    ) -> None:
        self.model = model
        self.audio_format = audio_format
        self.processed_samples = 0
        self.due_samples = 0
        self.pending = PendingAudio(state.audio, audio_format) if pending is None else pending
        self.consume = state.consume
        self._state = state
        self._start_sample = state.next_sample
        self._model_rate_hz = model.metadata.sample_rate_hz

    @property
    def lanes(self) -> tuple[Self]:
        """The one model of the call, which is this session."""
        return (self,)

    def collect(self, events: list[Event]) -> list[Event]:
        """Return the events, which need not wait for those of another model."""
        return events

    @property
    def has_pending(self) -> bool:
        """Whether further steps may be ready without new input."""
        return len(self.pending) > 0 or self._state.ready_steps > 0

    def prepare(self, limit_s: float) -> int:
        """Decode pending audio; return for how many steps to run the model now, about `limit_s` at most."""
        self.pending.decode(limit_s)
        return self._state.steps_to_run(self._state.steps_in(limit_s))

    @property
    def is_quiet(self) -> bool:
        """Whether the next steps need no inference, because they follow a receptive field of silence."""
        return self._state.quiet_steps > 0

    @property
    def starts_from_initial_state(self) -> bool:
        """Whether the model has to process the next step from its initial state."""
        return self._state.starts_from_initial_state

    def _advance(self) -> None:
        processed = self._state.next_sample - self._start_sample
        processed = processed * self.audio_format.sample_rate_hz // self._model_rate_hz
        # A gate that opens goes back a little.
        self.processed_samples = max(self.processed_samples, processed)


class SpottingSession(_AudioSession):
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
        first: SpottingSession | None = None,
    ) -> None:
        """Start a stream, or resume a broken one; ResumeError for a resume point that does not fit.

        `first`: the session of the stream's first model, whose audio this one shares.
        """
        audio, pending = (None, None) if first is None else (first._state.audio, first.pending)
        state = StreamState(model, audio_format, active, resume, resume_keys, audio=audio)
        super().__init__(model, audio_format, state, pending)
        self.active = tuple(active)
        self.start_ns = 0 if resume is None else resume.start_offset_ns
        """The offset in the stream at which the audio of this call begins."""
        self._frame_samples = model.metadata.frame_samples
        self._max_wait_samples = round(audio_format.sample_rate_hz * _MAX_WAIT_S)
        self._score_frames = self._frames_of_interval(score_interval_ns)
        self._progress_frames = self._frames_of_interval(progress_interval_ns)
        # Reports on the replayed audio before the resume point were sent in the call that broke.
        frame = self._state.next_new_frame
        self._next_score = self._next_multiple(frame, self._score_frames)
        self._next_progress = self._next_multiple(frame, self._progress_frames)
        self.due_samples = self._find_due()

    @property
    def _frame(self) -> int:
        return self._state.next_sample // self._frame_samples

    def apply(self, scores: Float32Array) -> list[Event]:
        """Process the scores; return the events in an order that depends on the audio alone."""
        events: list[Event] = []
        frame = self._frame
        while len(scores):
            end = min(self._next_score, self._next_progress, self._state.next_notice_frame)
            part = scores[: max(1, end - frame)]
            events += self._state.apply(part)
            frame += len(part)
            self._report(frame, part, events)
            scores = scores[len(part) :]
        return self._end_run(events)

    def skip_quiet(self) -> list[Event]:
        """Process quiet steps without inference.

        Detections and scores are those that inference would produce. Of the progress reports that are due,
        only the last one is made, so that the cost does not grow with the length of the silence.
        """
        steps = self._state.quiet_steps
        if self._score_frames:
            return self.apply(self._state.consume_silence(min(steps, _MAX_QUIET_STEPS)))
        frames = self._state.next_notice_frame - self._frame
        steps = min(steps, self._state.skip_limit, -(-frames // self.model.metadata.frames_per_step))
        events: list[Event] = list(self._state.skip(steps))
        frame = self._frame
        self._append_notices(frame, events)
        if frame >= self._next_progress:
            is_reported = self._ns(self._next_progress) <= self._state.received_ns
            self._next_progress = self._next_multiple(frame, self._progress_frames)
            if is_reported:
                self._append_progress(events)
        return self._end_run(events)

    def progress(self) -> list[Event]:
        """Return the position, for a client that is to resume elsewhere."""
        return [Progress(self._state.progress(), draining=True)]

    def _end_run(self, events: list[Event]) -> list[Event]:
        self._advance()
        self.due_samples = self._find_due()
        if self._state.finished:
            self._append_notices(NO_FRAME - 1, events)
            error = self.pending.error
            events.append(Finished(self._state.received_ns) if error is None else Failed(error))
        return events

    def _find_due(self) -> int:
        if self.pending.error is not None:
            return 0
        # Progress is not urgent: it is sent with whatever is processed next. Neither is audio while the gate
        # is closed: it opens at the beginning of a word, which cannot be detected before its end.
        frame = self._next_score
        if not self._state.may_wait:
            frame = min(frame, self._state.next_decision_frame + 1)
        due = frame * self._frame_samples - self._start_sample
        due = -(-due * self.audio_format.sample_rate_hz // self._model_rate_hz)
        return min(due, self.processed_samples + self._max_wait_samples)

    def _report(self, frame: int, scores: Float32Array, events: list[Event]) -> None:
        # Before Progress, so that a stream that resumes from there gets no notice twice.
        self._append_notices(frame, events)
        # Frames beyond the end of the audio only complete its last keyword: they are not reported.
        if frame == self._next_score:
            self._next_score += self._score_frames
            if self._ns(frame) <= self._state.received_ns:
                events.append(Scores(self._ns(frame), scores[-1].copy(), self.model.metadata.name))
        if frame == self._next_progress:
            self._next_progress += self._progress_frames
            if self._ns(frame) <= self._state.received_ns:
                self._append_progress(events)

    def _append_progress(self, events: list[Event]) -> None:
        events.append(Progress(self._state.progress()))

    def _append_notices(self, frame: int, events: list[Event]) -> None:
        """Append the notices of the audio before `frame`."""
        while self._state.next_notice_frame <= frame:
            events.append(self._state.next_notice())

    def _ns(self, frame: int) -> int:
        return offset_ns(frame * self._frame_samples, self._model_rate_hz)

    def _frames_of_interval(self, interval_ns: int | None) -> int:
        """Convert an interval to frames, rounded up to whole steps of the model; 0 for none."""
        if interval_ns is None:
            return 0
        step = self.model.metadata.step_samples
        steps = max(1, -(-interval_ns * self._model_rate_hz // (step * NANOSECONDS)))
        return steps * self.model.metadata.frames_per_step

    @staticmethod
    def _next_multiple(first: int, interval: int) -> int:
        """Return the first multiple of an interval after frame `first`; never for an interval of 0."""
        return (first // interval + 1) * interval if interval else _NEVER


class ClassificationSession(_AudioSession):
    """Scores every class on one clip."""

    def __init__(
        self, model: SpotterModel, audio_format: AudioFormat, active: Sequence[ActiveKeyword]
    ) -> None:
        """Start a clip; `active`: all keywords of the model."""
        self._classifier = ClipClassifier.for_model(model)
        state = StreamState(
            model, audio_format, active, gated=False, on_final_scores=self._classifier.add_finals
        )
        super().__init__(model, audio_format, state)
        self.due_samples = 0  # the only event comes at the end, but a clip arrives as a whole

    def apply(self, scores: Float32Array) -> list[Event]:
        """Process the scores; return the clip's scores after the last step, and nothing before."""
        self._state.apply(scores)
        self._advance()
        self._classifier.push(scores)
        if not self._state.finished:
            return []
        if self.pending.error is not None:
            return [Failed(self.pending.error)]
        events: list[Event] = []
        while self._state.next_notice_frame != NO_FRAME:
            events.append(self._state.next_notice())
        return [*events, ClipScores(self._classifier.scores, self._state.received_ns)]

    def skip_quiet(self) -> list[Event]:
        """Process quiet steps without inference; return the clip's scores after the last one."""
        return self.apply(self._state.consume_silence(min(self._state.quiet_steps, _MAX_QUIET_STEPS)))

    def progress(self) -> list[Event]:
        """Return nothing: a clip is sent again as a whole."""
        return []
