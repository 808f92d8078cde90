"""One stream's state, all but the model's: what came in, what is due, what was heard, where to resume."""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from earmark_spotter.audio import AudioDecoder, AudioFormat
from earmark_spotter.detector import ActiveKeyword, Detection, Detector
from earmark_spotter.errors import AudioError, ResumeError
from earmark_spotter.resume import ResumePoint, ResumeState, decode_token, encode_token, stream_digest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from earmark_spotter.model import Float32Array, SpotterModel

NANOSECONDS = 1_000_000_000

REPLAY_MARGIN_MS = 500
"""Replayed beyond the receptive field: the resampler's start has died out by then (10 ms, measured)."""


def offset_ns(samples: int, sample_rate_hz: int) -> int:
    """Convert a sample count to its time in whole nanoseconds, rounded down."""
    return samples * NANOSECONDS // sample_rate_hz


@dataclass(frozen=True, slots=True)
class StreamProgress:
    """How far a stream has come, in nanoseconds from the start of its audio.

    `received_offset_ns`: the end of the audio received. `decided_offset_ns`: every detection
    that ends before it has been given out. `replay_offset_ns`: what a client must still hold
    to resume, a whole second. `resume_token`: for ResumePoint, with that offset.
    """

    received_offset_ns: int
    decided_offset_ns: int
    replay_offset_ns: int
    resume_token: bytes


class StreamState:
    """One stream, with the model's step left to the caller, who may batch it with other streams'.

    Push what comes in (`push_audio`, `push_silence`, in the end `finish`); while `ready_steps`,
    `take` some steps, run the model on them with this stream's model state (which begins as
    `model.initial_state`, also on a resumed stream), and `apply` the scores, in the order taken.
    After `finish`, the `apply` of the last steps also gives what was still undecided.

    Not thread-safe, with one exception that a server needs: pushing and taking may go on
    in one thread while another one applies.
    """

    def __init__(
        self,
        model: SpotterModel,
        audio_format: AudioFormat,
        active: Sequence[ActiveKeyword],
        resume: ResumePoint | None = None,
        resume_keys: Sequence[bytes] = (),
    ) -> None:
        """Begin a stream, or go on with a broken one.

        `resume_keys`: the first one signs resume tokens, all of them are accepted; none: the model
        file's own. Raises ResumeError for a resume point that does not fit this model, format and keywords.
        """
        meta = model.metadata
        self._metadata = meta
        self._rate_hz = meta.sample_rate_hz
        self._step_samples = meta.step_samples
        self._input_rate_hz = audio_format.sample_rate_hz
        self._digest = stream_digest(model, audio_format, active)
        self._resume_keys = resume_keys or (model.resume_key,)
        # Whole seconds keep the resampler's phase, whole steps the model's frames.
        self._replay_unit_s = math.lcm(self._rate_hz, self._step_samples) // self._rate_hz
        end_lags_ms = [meta.keywords[keyword.keyword].end_lag_ms for keyword in active]
        self._tail_samples = meta.samples_from_ms(max(end_lags_ms, default=0) + meta.detector.hold_ms)

        self._start_s = 0
        self._decided_floor = 0
        snapshot = None
        if resume is not None:
            state = self._read_resume_point(resume, {keyword.class_index for keyword in active})
            self._start_s = state.replay_s
            self._decided_floor = state.decided_sample
            snapshot = state.detector
        self._detector = Detector(meta, active, snapshot=snapshot)
        self._next_frame = self._start_s * self._rate_hz // meta.frame_samples

        self._decoder = AudioDecoder(audio_format, self._rate_hz)
        self._received_samples = 0  # in this call, at the input's rate
        # Silence that is not made yet, as counts, and the audio that came after it.
        self._waiting: deque[int | Float32Array] = deque()
        self._ready: deque[Float32Array] = deque()
        self._ready_samples = 0  # at the model's rate
        self._taken_samples = self._start_s * self._rate_hz  # from the start of the stream's audio
        self._finishing = False
        self._end_frame: int | None = None
        self._finished = False

    @property
    def ready_steps(self) -> int:
        """Whole steps that can be taken now.

        A long silence is made piece by piece: it counts about a second at a time.
        """
        return self._ready_samples // self._step_samples

    @property
    def finished(self) -> bool:
        """Whether the stream was finished and every score of it applied."""
        return self._finished

    @property
    def next_sample(self) -> int:
        """The sample, at the model's rate, at which the next frame to be applied begins."""
        return self._next_frame * self._metadata.frame_samples

    @property
    def next_new_frame(self) -> int:
        """The next frame (from the start of the stream's audio) that is not replayed from before a resume."""
        return self._detector.frame

    @property
    def next_decision_frame(self) -> int:
        """No detection can come before this frame (from the start of the stream's audio) is applied."""
        return self._detector.next_decision_frame

    @property
    def received_ns(self) -> int:
        """The end of the audio received, in nanoseconds from the start of the stream's audio."""
        return self._start_s * NANOSECONDS + offset_ns(self._received_samples, self._input_rate_hz)

    def push_audio(self, data: bytes) -> None:
        """Take the stream's next bytes, cut anywhere. Raises AudioError for bad float samples."""
        self._check_open()
        self._push(self._decoder.parse(data))

    def push_samples(self, samples: Float32Array) -> None:
        """Take samples in place of bytes: float32 [n] or [n, channels] at the format's rate.

        Raises AudioError for another number of channels, bad samples, or after a split one.
        """
        self._check_open()
        self._push(self._decoder.accept(samples))

    def push_silence(self, sample_count: int) -> None:
        """Take that many samples, at the format's rate, of digital silence.

        Costs nothing until it is taken. Raises AudioError while a sample is split.
        """
        self._check_open()
        if sample_count < 0:
            raise AudioError(f"A silence cannot be {sample_count} samples long.")
        self._decoder.check_whole()
        self._received_samples += sample_count
        self._waiting.append(sample_count)
        self._refill()

    def finish(self) -> None:
        """End the audio; enough silence follows that a word at the very end is decided.

        There is at least one step to take then. Raises AudioError if a sample is split.
        """
        self._check_open()
        self._decoder.check_whole()
        self._finishing = True
        self._refill()

    def consume(self, step_count: int) -> Float32Array:
        """Take the next steps' samples, [step_count * step_samples]; at most `ready_steps`. Read-only."""
        wanted = step_count * self._step_samples
        if not 0 < wanted <= self._ready_samples:
            raise ValueError(f"{step_count} steps were asked for, but {self.ready_steps} are ready")
        self._ready_samples -= wanted
        self._taken_samples += wanted
        first = self._ready.popleft()
        if first.shape[0] > wanted:
            self._ready.appendleft(first[wanted:])
            taken = first[:wanted]
        elif first.shape[0] == wanted:
            taken = first
        else:
            taken = self._join(first, wanted)
        if self._waiting or self._finishing:
            self._refill()
        return taken

    def apply(self, scores: Float32Array) -> list[Detection]:
        """Take the scores [frames, classes] of the steps taken; return what they decide.

        Scores of replayed audio from before the resume point are passed over.
        """
        known = self._detector.frame - self._next_frame
        self._next_frame += scores.shape[0]
        if known > 0:
            scores = scores[known:]
        detections = self._detector.push(scores)
        if self._next_frame == self._end_frame:
            self._finished = True
            detections += self._detector.flush()
        if not detections:
            return detections
        length = self._received_at_model_rate()
        return [_clip(detection, length) for detection in detections]

    def progress(self) -> StreamProgress:
        """How far the stream has come, and a token to resume it from here.

        Not while another thread applies.
        """
        snapshot = self._detector.snapshot()
        # Detections are clipped to the audio's end, which may turn out to be right here.
        decided = min(self._detector.decided_sample, self._received_at_model_rate())
        decided = max(decided, self._decided_floor)
        self._decided_floor = decided
        replay_s, key = self._replay_offset_s(snapshot.frame), self._resume_keys[0]
        return StreamProgress(
            received_offset_ns=self.received_ns,
            decided_offset_ns=offset_ns(decided, self._rate_hz),
            replay_offset_ns=replay_s * NANOSECONDS,
            resume_token=encode_token(ResumeState(replay_s, decided, snapshot), self._digest, key),
        )

    def _check_open(self) -> None:
        if self._finishing:
            raise RuntimeError("the stream was finished: begin a new one")

    def _push(self, samples: Float32Array) -> None:
        if not samples.shape[0]:
            return
        self._received_samples += samples.shape[0]
        if self._waiting:
            self._waiting.append(samples)
        else:
            self._make_ready(self._decoder.resample(samples))

    def _make_ready(self, samples: Float32Array) -> None:
        if samples.shape[0]:
            self._ready.append(samples)
            self._ready_samples += samples.shape[0]

    def _refill(self) -> None:
        """Make what waits behind a silence, about a second at a time, and in the end the tail."""
        while self._waiting and self._ready_samples < self._rate_hz:
            item = self._waiting.popleft()
            if isinstance(item, int):
                piece = min(item, self._input_rate_hz)
                if item > piece:
                    self._waiting.appendleft(item - piece)
                item = np.zeros(piece, np.float32)
            self._make_ready(self._decoder.resample(item))
        if self._finishing and not self._waiting and self._end_frame is None:
            self._make_tail()

    def _make_tail(self) -> None:
        self._make_ready(self._decoder.flush())
        steps = max(1, math.ceil((self._ready_samples + self._tail_samples) / self._step_samples))
        self._make_ready(np.zeros(steps * self._step_samples - self._ready_samples, np.float32))
        # Taken, but perhaps not yet applied, frames lie before those that are ready.
        self._end_frame = (self._taken_samples + self._ready_samples) // self._metadata.frame_samples

    def _join(self, first: Float32Array, wanted: int) -> Float32Array:
        pieces, missing = [first], wanted - first.shape[0]
        while missing:
            piece = self._ready.popleft()
            if piece.shape[0] > missing:
                self._ready.appendleft(piece[missing:])
                piece = piece[:missing]
            pieces.append(piece)
            missing -= piece.shape[0]
        return np.concatenate(pieces)

    def _received_at_model_rate(self) -> int:
        """Give the end of the audio received, in samples at the model's rate, rounded up."""
        received = -(-self._received_samples * self._rate_hz // self._input_rate_hz)
        return self._start_s * self._rate_hz + received

    def _replay_offset_s(self, frame: int) -> int:
        """Find the latest whole second from which a replay has forgotten its own start by that frame."""
        meta = self._metadata
        needed = meta.receptive_field_samples + meta.samples_from_ms(REPLAY_MARGIN_MS)
        start = max(0, frame * meta.frame_samples - needed)
        return start // (self._replay_unit_s * self._rate_hz) * self._replay_unit_s

    def _read_resume_point(self, resume: ResumePoint, active: set[int]) -> ResumeState:
        state = decode_token(resume.token, self._digest, self._resume_keys)
        if resume.start_offset_ns != state.replay_s * NANOSECONDS:
            raise ResumeError(
                f"The resumed audio must start at {state.replay_s} s, the replay offset that came with the "
                f"token, but starts at {resume.start_offset_ns / NANOSECONDS:g} s."
            )
        snapshot = state.detector
        classes = {index for index, _ in snapshot.blocked}
        if snapshot.candidate is not None:
            classes.add(snapshot.candidate.class_index)
        heard = (snapshot.frame + 1) * self._metadata.frame_samples
        if (
            not classes <= active
            or state.decided_sample > heard
            or self._replay_offset_s(snapshot.frame) != state.replay_s
        ):
            raise ResumeError("The resume token does not hold what a token holds: begin a new stream.")
        return state


def _clip(detection: Detection, length: int) -> Detection:
    """End a detection with the audio: its word may have been heard out in the silence after it."""
    if detection.end_sample <= length:
        return detection
    return dataclasses.replace(detection, start_sample=min(detection.start_sample, length), end_sample=length)
