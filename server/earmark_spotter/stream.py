"""One model's part of a stream except for the model's state: steps, detector, position, resume point."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from earmark_spotter.detector import ActiveKeyword, Detection, Detector
from earmark_spotter.errors import ResumeError
from earmark_spotter.resume import (
    INVALID_CONTENT,
    MAX_OFFSET_S,
    ResumePoint,
    ResumeState,
    decode_token,
    encode_token,
    join_tokens,
    max_token_bytes,
    stream_digest,
)
from earmark_spotter.sample_time import NANOSECONDS, offset_ns
from earmark_spotter.step_queue import GatedStepQueue, StepQueue
from earmark_spotter.stream_audio import StreamAudio, replay_unit_s
from earmark_spotter.stream_checks import NO_PROBLEMS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from earmark_audio import Notice

    from earmark_spotter.audio import AudioFormat
    from earmark_spotter.detector import Candidate
    from earmark_spotter.metadata import ModelMetadata
    from earmark_spotter.model import Float32Array, SpotterModel

_MAX_SKIP_S = 60
"""Silence that is skipped at once where silence itself reaches a threshold, or its scores change."""

_UNLIMITED = 1 << 62

NO_FRAME = 1 << 62
"""A frame that never comes."""

_NOISE_S = 1
"""How much audio before a keyword is searched for noise."""

_TRANSIENT_MS = 100
"""Audio after the start of a replay that is not measured: the resampler has other input before it."""

REPLAY_MARGIN_MS = 500
"""Audio replayed beyond the receptive field: the resampler's transient ends within 10 ms (measured)."""


@dataclass(frozen=True, slots=True)
class StreamProgress:
    """The position of a stream, in nanoseconds from the start of its audio.

    `received_offset_ns`: the end of the audio received. `decided_offset_ns`: every detection
    that ends before it has been returned. `replay_offset_ns`: a client must keep the audio from
    here on to resume; a whole second. `resume_token`: for ResumePoint, together with that offset.
    """

    received_offset_ns: int
    decided_offset_ns: int
    replay_offset_ns: int
    resume_token: bytes


class StreamState:
    """One stream of one model without inference, which is left to the caller, who may batch several streams.

    A stream with several models has one of these for each, and they share its `audio`.

    Push the input (`push_audio`, `push_silence`, and `finish` at the end). While there are
    `ready_steps`, `consume` as many as `steps_to_run` returns, run the model on them with this
    stream's model state (which starts as `model.initial_state`, also on a resumed stream), and
    `apply` the scores. After `finish`, the last steps also return the last detections.

    Silence needs no inference: after a receptive field of digital silence, the state of the model is its
    initial state, and its scores do not change until there is audio again. The gate of a model extends this
    to audio that is nearly silent. If `steps_to_run` returns 0, `skip` the `quiet_steps`. Before each run,
    set the model state to the initial state if the stream `starts_from_initial_state`.

    It is not thread-safe.
    """

    def __init__(
        self,
        model: SpotterModel,
        audio_format: AudioFormat,
        active: Sequence[ActiveKeyword],
        resume: ResumePoint | None = None,
        resume_keys: Sequence[bytes] = (),
        *,
        gated: bool = True,
        on_final_scores: Callable[[dict[int, float]], None] | None = None,
        audio: StreamAudio | None = None,
    ) -> None:
        """Start a stream, or resume a broken one.

        `audio`: that of the stream's first model, for a further one. Only the first model returns notices.

        `resume_keys`: the first one signs resume tokens, and all of them are accepted; empty: the key
        derived from the model file. Raises ResumeError for a resume point that does not fit this model,
        format and keywords. `gated`: whether the gate of the model, if it has one, skips audio.
        `on_final_scores` is called with the final scores, by class index, of each peak that the verifier
        checks.
        """
        meta = model.metadata
        self._metadata = meta
        self._is_gated = gated and meta.gate is not None
        self._rate_hz = meta.sample_rate_hz
        self._step_samples = meta.step_samples
        self._input_rate_hz = audio_format.sample_rate_hz
        self._window_samples = 0 if meta.verifier is None else meta.verifier.window_samples
        self._digest = stream_digest(model, audio_format, active)
        self._resume_keys = resume_keys or (model.resume_key,)
        end_lags_ms = [meta.keywords[keyword.keyword].end_lag_ms for keyword in active]
        tail_samples = meta.samples_from_ms(max(end_lags_ms, default=0) + meta.detector.hold_ms)

        state = None
        if resume is not None:
            state = self._read_resume_point(resume, len(active))
        self._decided_floor = 0 if state is None else state.decided_sample
        self._verifier = model.verifier
        self._on_final_scores = on_final_scores
        self._detector = Detector(
            meta,
            active,
            snapshot=None if state is None else state.detector,
            final_scores=None if self._verifier is None else self._final_scores,
        )
        if state is not None and not self._can_reach(state, audio_format):
            raise ResumeError(INVALID_CONTENT)
        self._first_new_frame = self._detector.frame
        start_s = 0 if state is None else state.replay_s
        start = start_s * self._rate_hz // self._step_samples
        self._queue: StepQueue
        if meta.gate is None or not gated:
            self._queue = StepQueue(meta, start)
        else:
            self._queue = GatedStepQueue(
                meta,
                meta.gate,
                start,
                None if state is None else state.gate,
                self._detector.frame // meta.frames_per_step,
            )
        self._next_frame = start * meta.frames_per_step
        self._noise_samples = {one.keyword: _noise_samples(meta, one.keyword) for one in active}
        self._returns_notices = audio is None
        if audio is None:
            audio = StreamAudio(audio_format, start_s, NO_PROBLEMS if state is None else state.checks)
        self.audio = audio
        """The stream's audio: push its input there, or here if there is one model."""
        self.push_audio, self.push_samples = audio.push_audio, audio.push_samples
        self.push_silence, self.finish = audio.push_silence, audio.finish
        self._reader = audio.attach(meta, self._queue, tail_samples, keeps_samples=self._verifier is not None)
        self.steps_in = self._reader.steps_in

        self._silence_scores = model.silence_scores  # [frames_per_step, classes]
        self._silence_is_constant = bool((model.silence_scores == model.silence_scores[0]).all())
        self.skip_limit = _UNLIMITED
        """How many steps to `skip` at once at most, so that the cost and the detections are bounded."""
        if not self._silence_is_constant or self._detector.reaches_threshold(model.silence_scores):
            self.skip_limit = _MAX_SKIP_S * self._rate_hz // self._step_samples
        self._finished = False

    @property
    def ready_steps(self) -> int:
        """Whole steps in the queue, which take memory only when they are consumed if they are silence."""
        return self._queue.ready_steps

    @property
    def quiet_steps(self) -> int:
        """The next steps that need no inference; up to date after `steps_to_run`."""
        return self._queue.quiet_steps

    @property
    def may_wait(self) -> bool:
        """Whether a word cannot be complete before the gate has opened for it."""
        return self._queue.may_wait

    @property
    def starts_from_initial_state(self) -> bool:
        """Whether the model has to process the next step from its initial state."""
        return self._queue.starts_from_initial_state

    def steps_to_run(self, limit: int) -> int:
        """Return how many steps to run the model on now: at most `limit`, and none that can be skipped."""
        steps = self._queue.steps_to_run(limit)
        # A gate that opens goes back to audio that it skipped.
        self._next_frame = self._queue.position * self._metadata.frames_per_step
        return steps

    @property
    def finished(self) -> bool:
        """Whether the stream was finished and all of its scores were applied."""
        return self._finished

    @property
    def next_sample(self) -> int:
        """The sample, at the model's rate, at which the next frame to be applied starts."""
        return self._next_frame * self._metadata.frame_samples

    @property
    def next_new_frame(self) -> int:
        """The next frame, from the start of the stream's audio, that lies after the resume point."""
        return self._detector.frame

    @property
    def next_decision_frame(self) -> int:
        """The frame, from the start of the stream's audio, before which no detection is possible."""
        return self._detector.next_decision_frame

    @property
    def earliest_decision_frame(self) -> int:
        """The frame before which no detection is possible, whatever scores come next."""
        return self._detector.earliest_decision_frame

    @property
    def end_sample(self) -> int | None:
        """The sample, at the model's rate, at which the last frame ends; None before the audio has ended."""
        end_step = self._reader.end_step
        return None if end_step is None else end_step * self._step_samples

    @property
    def received_ns(self) -> int:
        """The end of the audio received, in nanoseconds from the start of the stream's audio."""
        return self.audio.received_ns

    @property
    def next_notice_frame(self) -> int:
        """The end of the frames before which no notice of the audio is due; NO_FRAME if none is known."""
        found = self.audio.checks.found
        while found and self._returns_notices:
            frame = self._frame_at(found[0][0])
            if frame > self._first_new_frame:
                return frame
            found.popleft()  # it was returned before the stream broke
        return NO_FRAME

    def next_notice(self) -> Notice:
        """Remove and return the next notice of a problem of the audio."""
        return self.audio.checks.found.popleft()[1]

    def consume(self, step_count: int) -> Float32Array:
        """Remove and return the samples of the next steps, [step_count * step_samples], read-only.

        Raises ValueError for more than `ready_steps`.
        """
        return self._queue.consume(step_count)

    def consume_silence(self, step_count: int) -> Float32Array:
        """Remove quiet steps; return their scores, [frames, classes], for `apply`.

        Raises ValueError for more than `quiet_steps`.
        """
        self._queue.skip(step_count)
        return np.tile(self._silence_scores, (step_count, 1))

    def skip(self, step_count: int) -> list[Detection]:
        """Remove quiet steps and apply their scores; return the detections.

        Raises ValueError for more than `quiet_steps`.
        """
        if not self._silence_is_constant:
            return self.apply(self.consume_silence(step_count))
        self._queue.skip(step_count)
        frames = step_count * self._metadata.frames_per_step
        replayed = min(frames, max(0, self._detector.frame - self._next_frame))
        return self._advance(frames, self._detector.push_constant(self._silence_scores[0], frames - replayed))

    def apply(self, scores: Float32Array) -> list[Detection]:
        """Process the scores, [frames, classes], of consumed steps; return the detections.

        Scores of audio that is replayed from before the resume point are ignored.
        """
        replayed = self._detector.frame - self._next_frame
        new = scores[replayed:] if replayed > 0 else scores
        return self._advance(scores.shape[0], self._detector.push(new))

    def _advance(self, frames: int, detections: list[Detection]) -> list[Detection]:
        self._next_frame += frames
        if self._next_frame * self._metadata.frame_samples == self.end_sample:
            self._finished = True
            detections += self._detector.flush()
        self._reader.needed_s = self._replay_offset_s(self._detector.frame)
        processed = self._detector.frame * self._metadata.frame_samples
        self._reader.recent_from = processed - self._window_samples
        if not detections:
            return detections
        length = self._received_at_model_rate()
        return [self._with_levels(_clip(detection, length)) for detection in detections]

    def _final_scores(self, candidate: Candidate, hold_end: int) -> dict[int, float]:
        """Return the final scores of what a candidate proposes; its peak hold ends at a sample."""
        assert self._verifier is not None
        assert self._reader.recent is not None
        pcm = self._reader.recent.samples(hold_end - self._window_samples, hold_end)
        finals = self._verifier.final_scores(pcm, candidate.proposed)
        if self._on_final_scores is not None:
            self._on_final_scores(finals)
        return finals

    def _with_levels(self, detection: Detection) -> Detection:
        level_dbfs, snr_db = self._reader.meter.levels(
            detection.start_sample, detection.end_sample, self._noise_samples[detection.keyword]
        )
        return dataclasses.replace(detection, level_dbfs=level_dbfs, snr_db=snr_db)

    def progress(self) -> StreamProgress:
        """Return the position of a stream with one model, with a token to resume it from here."""
        return stream_progress([self], [self.snapshot()])

    def snapshot(self) -> ResumeState:
        """Return this part of the stream's position as a value, for `stream_progress`."""
        snapshot = self._detector.snapshot()
        # Detections are clipped to the end of the audio, which may be right here.
        decided = min(self._detector.decided_sample, self._received_at_model_rate())
        decided = max(decided, self._decided_floor)
        self._decided_floor = decided
        replay_s = self._replay_offset_s(snapshot.frame)
        gate = self._queue.snapshot(snapshot.frame // self._metadata.frames_per_step)
        return ResumeState(replay_s, decided, snapshot, gate, self.audio.checks.state_at(replay_s))

    def token(self, state: ResumeState) -> bytes:
        """Return this model's part of a resume token."""
        return encode_token(state, self._digest, self._resume_keys[0])

    def decided_ns(self, state: ResumeState) -> int:
        """Return the offset before which every detection of this model has been returned."""
        return offset_ns(state.decided_sample, self._rate_hz)

    def _frame_at(self, position: int) -> int:
        """Return the first frame that begins at or after a position in samples at the input's rate."""
        sample = -(-position * self._rate_hz // self._input_rate_hz)
        return -(-sample // self._metadata.frame_samples)

    def _received_at_model_rate(self) -> int:
        """Return the end of the audio received, in samples at the model's rate, rounded up."""
        received = -(-self.audio.received_samples * self._rate_hz // self._input_rate_hz)
        return self.audio.start_s * self._rate_hz + received

    def _replay_offset_s(self, frame: int) -> int:
        """Return the latest whole second from which a replay no longer depends on its start at `frame`."""
        return self._replayed_from(frame) // self.audio.replay_unit_s * self.audio.replay_unit_s

    def _replayed_from(self, frame: int) -> int:
        """Return the last second from which a replay no longer depends on its start at `frame`."""
        meta = self._metadata
        longest = max(meta.receptive_field_samples, self._window_samples)
        needed = longest + meta.samples_from_ms(REPLAY_MARGIN_MS)
        return max(0, frame * meta.frame_samples - needed) // self._rate_hz

    def _read_resume_point(self, resume: ResumePoint, keyword_count: int) -> ResumeState:
        # A block of the gate is shorter than a second.
        longest = max_token_bytes(keyword_count, self._rate_hz // self._step_samples)
        token = resume.token if len(resume.token) <= longest else b""
        state = decode_token(token, self._digest, self._resume_keys)
        if resume.start_offset_ns != state.replay_s * NANOSECONDS:
            raise ResumeError(
                f"The resumed audio must start at {state.replay_s} s, the replay offset of the token, but "
                f"starts at {resume.start_offset_ns / NANOSECONDS:g} s."
            )
        return state

    def _can_reach(self, state: ResumeState, audio_format: AudioFormat) -> bool:
        """Return whether a stream with these settings can be in a state, except for its gate's."""
        frame = state.detector.frame
        processed = (frame + 1) * self._metadata.frame_samples
        return (
            self._detector.can_reach(state.detector)
            and processed <= MAX_OFFSET_S * self._rate_hz
            and state.decided_sample <= processed
            and state.replay_s <= self._replayed_from(frame)
            and state.replay_s % replay_unit_s(self._metadata) == 0
            and (state.gate is not None) == self._is_gated
            and state.checks.is_possible_at(state.replay_s, audio_format)
        )


def stream_progress(parts: Sequence[StreamState], states: Sequence[ResumeState]) -> StreamProgress:
    """Return the position of a stream, from a snapshot of the part of each of its models."""
    earliest = min(states, key=lambda state: state.replay_s)
    tokens = [
        part.token(dataclasses.replace(state, replay_s=earliest.replay_s, checks=earliest.checks))
        for part, state in zip(parts, states, strict=True)
    ]
    return StreamProgress(
        received_offset_ns=parts[0].received_ns,
        decided_offset_ns=min(part.decided_ns(state) for part, state in zip(parts, states, strict=True)),
        replay_offset_ns=earliest.replay_s * NANOSECONDS,
        resume_token=join_tokens(tokens),
    )


def _noise_samples(metadata: ModelMetadata, keyword: str) -> int:
    """Return how much audio before a keyword is searched for noise: a second, or less if a word is long.

    It must lie within the audio that a resumed stream replays, so that resuming does not change the result.
    """
    info = metadata.keywords[keyword]
    word_ms = metadata.detector.hold_ms + info.end_lag_ms + info.duration_ms
    replayed = metadata.receptive_field_samples + metadata.samples_from_ms(REPLAY_MARGIN_MS - _TRANSIENT_MS)
    rest = replayed - metadata.samples_from_ms(word_ms) - 2 * metadata.frame_samples
    return int(max(0, min(rest, metadata.sample_rate_hz * _NOISE_S)))


def _clip(detection: Detection, length: int) -> Detection:
    """Clip a detection to the end of the audio: its estimated end may lie in the silence after it."""
    if detection.end_sample <= length:
        return detection
    return dataclasses.replace(detection, start_sample=min(detection.start_sample, length), end_sample=length)
