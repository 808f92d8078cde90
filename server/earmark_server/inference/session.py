"""What one call wants from the engine: audio in, events out, and the model's steps between.

Everything here runs on the engine's thread, decoding included; the event loop only hands
over what came and takes the events.
"""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
from earmark_spotter import (
    ActiveKeyword,
    AudioFormat,
    ClipClassifier,
    Detection,
    ResumePoint,
    StreamState,
    offset_ns,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from earmark_spotter import SpotterModel, StreamProgress
    from earmark_spotter.model import Float32Array

NANOSECONDS = 1_000_000_000

# Long messages are decoded in pieces of that length, so that they hold up no other stream, and
# short ones that wait are put together, so that they cost no more than a long one.
_PIECE_S = 0.25

# What waits because nothing can come of it yet is bounded, whatever the model's hold.
_MAX_WAIT_NS = NANOSECONDS * 2 // 5


class End(enum.Enum):
    """The client's half-close: no more audio will come."""

    OF_AUDIO = enum.auto()


@dataclass(frozen=True, slots=True)
class Silence:
    """A pause that was not sent, in samples at the stream's own rate."""

    samples: int


Input: TypeAlias = "bytes | Float32Array | Silence | End"
"""What a call hands over: bytes in its format, or mono float32 samples [n], a pause, the end."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Every class's score, [classes], for the audio up to an offset."""

    offset_ns: int
    values: Float32Array


@dataclass(frozen=True, slots=True)
class Milestone:
    """How far the stream has come; `draining` when the server is about to go away."""

    progress: StreamProgress
    draining: bool = False


@dataclass(frozen=True, slots=True)
class Finished:
    """All of the audio was heard, and all of its detections were given out before this."""

    audio_ns: int


@dataclass(frozen=True, slots=True)
class ClipScores:
    """The scores of a clip, [classes], and its length."""

    values: Float32Array
    audio_ns: int


@dataclass(frozen=True, slots=True)
class Failed:
    """The call cannot go on."""

    error: Exception


Event: TypeAlias = Detection | Scores | Milestone | Finished | ClipScores | Failed


class Work(Protocol):
    """What the engine needs of a call."""

    model: SpotterModel
    heard_ns: int
    """Audio listened to in this call; only grows."""
    due_ns: int
    """Audio of this call before whose end nothing can come of listening; less of it may wait."""

    inbox: deque[Input]
    """What came and was not looked at yet: the event loop fills it, `prepare` empties it."""

    @property
    def has_more(self) -> bool:
        """Whether there may be more steps to take without anything new coming."""

    def prepare(self, limit_s: float) -> int:
        """Decode as much as it takes; return how many steps to take now, about `limit_s` at most.

        None means that something has to come first.
        """

    def take(self, steps: int) -> Float32Array:
        """Take the samples of the next steps, [steps * step_samples]."""

    def apply(self, scores: Float32Array) -> list[Event]:
        """Take the scores of the steps taken, [frames, classes]; return what they bring."""

    def milestone(self) -> Milestone | None:
        """Where the call stands, for a client that is to resume elsewhere; None if it cannot."""


class _Intake:
    """A call's audio: decoded only as far as the next steps need it."""

    def __init__(self, state: StreamState, model: SpotterModel, audio_format: AudioFormat) -> None:
        self.state = state
        self._piece_samples = max(1, round(audio_format.sample_rate_hz * _PIECE_S))
        self._piece_bytes = self._piece_samples * audio_format.frame_bytes
        self._step_s = model.metadata.step_ms / 1000
        self.inbox: deque[Input] = deque()
        self._position = 0  # in the first item

    @property
    def has_more(self) -> bool:
        return bool(self.inbox) or self.state.ready_steps > 0

    def prepare(self, limit_s: float) -> int:
        state, inbox = self.state, self.inbox
        # A little more than that, rather than a step less for a rounding.
        limit = max(1, int(limit_s / self._step_s + 0.01))
        while inbox and state.ready_steps < limit:
            item = inbox[0]
            if isinstance(item, bytes):
                state.push_audio(self._next_bytes(item))
            elif isinstance(item, np.ndarray):
                state.push_samples(item[self._next_piece(len(item), self._piece_samples)])
            else:
                inbox.popleft()
                if isinstance(item, Silence):
                    state.push_silence(item.samples)
                else:
                    state.finish()
        return min(state.ready_steps, limit)

    def _next_bytes(self, first: bytes) -> bytes:
        """Take a piece of a long message, or as many short ones as make a piece."""
        if len(first) > self._piece_bytes:
            return first[self._next_piece(len(first), self._piece_bytes)]
        messages, room = [], self._piece_bytes
        while self.inbox and isinstance(item := self.inbox[0], bytes) and len(item) <= room:
            messages.append(item)
            room -= len(item)
            self.inbox.popleft()
        return b"".join(messages)

    def _next_piece(self, length: int, size: int) -> slice:
        """Find the next piece of the first item, and pass over it."""
        start = self._position
        self._position += size
        if self._position >= length:
            self.inbox.popleft()
            self._position = 0
        return slice(start, start + size)


class Spotting:
    """Listens for keywords; with score frames and progress at every so much audio, if wanted."""

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
        """Begin, or go on with a broken stream; ResumeError for a resume point that does not fit."""
        self.model = model
        self.heard_ns = 0
        self.start_ns = 0 if resume is None else resume.start_offset_ns
        """Where in the stream's audio this call begins."""
        self._state = StreamState(model, audio_format, active, resume, resume_keys)
        self._intake = _Intake(self._state, model, audio_format)
        self.inbox = self._intake.inbox
        self.prepare = self._intake.prepare
        self.take = self._state.take

        self._frame_samples = model.metadata.frame_samples
        self._rate_hz = model.metadata.sample_rate_hz
        self._start_frame = self._frame
        self._score_frames = self._whole_steps(score_interval_ns)
        self._progress_frames = self._whole_steps(progress_interval_ns)
        # Replayed audio from before the resume point was reported on in the call that broke.
        first = self._state.next_new_frame
        self._next_score = self._due(first, self._score_frames)
        self._next_progress = self._due(first, self._progress_frames)
        self.due_ns = self._find_due_ns()

    @property
    def has_more(self) -> bool:
        """Whether there may be more steps to take without anything new coming."""
        return self._intake.has_more

    @property
    def _frame(self) -> int:
        return self._state.next_sample // self._frame_samples

    def apply(self, scores: Float32Array) -> list[Event]:
        """Take the scores; the events come out in an order that depends on the audio alone."""
        events: list[Event] = []
        frame = self._frame
        while len(scores):
            now = scores[: min(self._next_score, self._next_progress) - frame]
            events += self._state.apply(now)
            frame += len(now)
            self._report(frame, now, events)
            scores = scores[len(now) :]
        self.heard_ns = self._ns(frame - self._start_frame)
        self.due_ns = self._find_due_ns()
        if self._state.finished:
            events.append(Finished(self._state.received_ns))
        return events

    def _find_due_ns(self) -> int:
        # A Progress comes with what is listened to next: it hurries nobody.
        frame = min(self._state.next_decision_frame + 1, self._next_score)
        return min(self._ns(frame - self._start_frame), self.heard_ns + _MAX_WAIT_NS)

    def milestone(self) -> Milestone:
        """Where the stream stands, for a client that is to resume elsewhere."""
        return Milestone(self._state.progress(), draining=True)

    def _report(self, frame: int, scores: Float32Array, events: list[Event]) -> None:
        # Frames past the end of the audio hear out its last word: they are nobody's offsets.
        if frame == self._next_score:
            self._next_score += self._score_frames
            if self._ns(frame) <= self._state.received_ns:
                events.append(Scores(self._ns(frame), scores[-1].copy()))
        if frame == self._next_progress:
            self._next_progress += self._progress_frames
            if self._ns(frame) <= self._state.received_ns:
                events.append(Milestone(self._state.progress()))

    def _ns(self, frames: int) -> int:
        return offset_ns(frames * self._frame_samples, self._rate_hz)

    def _whole_steps(self, interval_ns: int | None) -> int:
        """Give an interval in frames, rounded up to whole steps of the model; 0 for none."""
        if interval_ns is None:
            return 0
        step = self.model.metadata.step_samples
        steps = max(1, -(-interval_ns * self._rate_hz // (step * NANOSECONDS)))
        return steps * self.model.metadata.frames_per_step

    @staticmethod
    def _due(first: int, interval: int) -> int:
        """Find the first frame count after `first` at which an interval is full."""
        return (first // interval + 1) * interval if interval else 1 << 62


class Classifying:
    """Scores every class on a clip."""

    def __init__(
        self, model: SpotterModel, audio_format: AudioFormat, active: Sequence[ActiveKeyword]
    ) -> None:
        """`active`: all of the model's keywords."""
        self.model = model
        self.heard_ns = 0
        self.due_ns = 0  # the one event comes at the end, but a clip is there as a whole
        self._state = StreamState(model, audio_format, active)
        self._intake = _Intake(self._state, model, audio_format)
        self.inbox = self._intake.inbox
        self.prepare = self._intake.prepare
        self.take = self._state.take
        self._classifier = ClipClassifier.for_model(model)

    @property
    def has_more(self) -> bool:
        """Whether there may be more steps to take without anything new coming."""
        return self._intake.has_more

    def apply(self, scores: Float32Array) -> list[Event]:
        """Take the scores; the one event comes with the last of them."""
        self._state.apply(scores)
        self.heard_ns = offset_ns(self._state.next_sample, self.model.metadata.sample_rate_hz)
        self._classifier.push(scores)
        if not self._state.finished:
            return []
        return [ClipScores(self._classifier.scores, self._state.received_ns)]

    def milestone(self) -> None:
        """Give nothing: a clip is sent again as a whole."""
