"""The detector: picks the peaks of the scores over time. It has no clock; it counts frames of audio."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from earmark_spotter.errors import KeywordError, ThresholdError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from earmark_spotter.metadata import ModelMetadata
    from earmark_spotter.model import Float32Array

    FinalScores = Callable[["Candidate", int], dict[int, float]]

MAX_REFRACTORY_MS = 60_000

PEAK_MARGIN = 1e-4
"""How much higher a score must be to replace a candidate's peak.

The scores of the same audio differ by rounding between batch sizes. On a saturated plateau
that could move the peak by a frame when a stream is resumed, and change the detection's id.
The margin is above this rounding and far below any difference that matters.
"""

_ROUNDING = 1e-3
"""Rounding of a mean of scores, in frames; far above that of 32-bit floats."""


@dataclass(frozen=True, slots=True)
class KeywordSetting:
    """The requested settings of one keyword; None selects the model's calibrated value.

    `threshold`: 0 to 1, both excluded. `refractory_ms`: 0 to 60,000 ms of audio.
    """

    keyword: str
    threshold: float | None = None
    refractory_ms: float | None = None


@dataclass(frozen=True, slots=True)
class ActiveKeyword:
    """A keyword to detect, with its effective settings.

    `class_index` is its position in the model's labels.
    """

    keyword: str
    class_index: int
    threshold: float
    refractory_ms: float


@dataclass(frozen=True, slots=True)
class Detection:
    """A detected keyword.

    `confidence`: the smoothed score at its peak, 0 to 1, or the verifier's final score. `start_sample`,
    `end_sample`: the position of the word, in samples at the model's rate from the start of the stream.
    `id`: unique within a stream, and the same whenever the same audio is processed again.
    `level_dbfs`, `snr_db`: as `LevelMeter.levels` measures them. `model`: its name. `decided_sample`: the end
    of the audio that decided it, which orders the detections of several models.
    """

    keyword: str
    confidence: float
    start_sample: int
    end_sample: int
    id: str
    level_dbfs: float | None = None
    snr_db: float | None = None
    model: str = ""
    decided_sample: int = 0


@dataclass(frozen=True, slots=True)
class Candidate:
    """A peak that is not decided yet: its highest score so far.

    `rivals`: pairs of a class index and the highest score of another keyword that has reached the proposal
    threshold since the candidate opened. Only a detector with a verifier has them.
    """

    class_index: int
    score: float
    frame: int
    rivals: tuple[tuple[int, float], ...] = ()

    @property
    def proposed(self) -> dict[int, float]:
        """The scores of the keyword and of its rivals, by class index."""
        return {self.class_index: self.score, **dict(self.rivals)}


@dataclass(frozen=True, slots=True)
class DetectorSnapshot:
    """The complete state of a detector, as a value.

    `frame`: the index of the next frame. `blocked`: pairs of a class index and the first frame
    in which that keyword can be detected again, for keywords in a refractory period.
    """

    frame: int
    candidate: Candidate | None
    blocked: tuple[tuple[int, int], ...]


def resolve_settings(
    metadata: ModelMetadata, requested: Sequence[KeywordSetting] = ()
) -> tuple[ActiveKeyword, ...]:
    """Return the keywords to detect: the requested settings, completed by the model's calibration.

    An empty request selects every keyword of the model. Raises KeywordError for a keyword that
    the model does not have or that is requested twice, and ThresholdError for a threshold or
    refractory period out of range.
    """
    settings = requested or [KeywordSetting(name) for name in metadata.keyword_names]
    active: dict[str, ActiveKeyword] = {}
    for setting in settings:
        name = setting.keyword
        info = metadata.keywords.get(name)
        if info is None:
            raise KeywordError(
                f"The model {metadata.name} has no keyword {name!r}. "
                f"Its keywords are: {', '.join(metadata.keyword_names)}."
            )
        if name in active:
            raise KeywordError(f"The keyword {name!r} is requested twice. Request each keyword once.")
        threshold = info.threshold if setting.threshold is None else setting.threshold
        if not 0 < threshold < 1:
            raise ThresholdError(
                f"The threshold of {name!r} must be between 0 and 1, both excluded, but is {threshold:g}."
            )
        refractory_ms = info.refractory_ms if setting.refractory_ms is None else setting.refractory_ms
        if not 0 <= refractory_ms <= MAX_REFRACTORY_MS:
            raise ThresholdError(
                f"The refractory period of {name!r} must be 0 to {MAX_REFRACTORY_MS / 1000:g} s, "
                f"but is {refractory_ms / 1000:g} s."
            )
        active[name] = ActiveKeyword(name, metadata.labels.index(name), threshold, refractory_ms)
    return tuple(active.values())


class Detector:
    """Picks the peaks in the scores of one stream.

    A candidate opens when the score of an active keyword reaches its threshold outside a
    refractory period. It tracks the highest score among all keywords that reach theirs. The
    candidate becomes a detection when `hold_ms` (the peak hold) have passed since its peak
    without a higher score. From the peak on, the same keyword is blocked for its refractory
    period, and every other keyword for `separation_ms`. All times are counted in frames of
    audio, so the result depends neither on a clock nor on the chunks in which frames arrive.

    If the model has a verifier, candidates open at its proposal threshold instead. The candidate and its
    rivals are verified at the candidate's place. Of those whose final score reaches the threshold of their
    keyword, the one with the highest becomes a detection. What is blocked from the peak on does not depend on
    the final scores: a rival is blocked like the candidate.
    """

    def __init__(
        self,
        metadata: ModelMetadata,
        active: Sequence[ActiveKeyword],
        *,
        snapshot: DetectorSnapshot | None = None,
        final_scores: FinalScores | None = None,
    ) -> None:
        """Detect these keywords from the start of a stream, or continue from a snapshot.

        final_scores: returns the verifier's scores of the keywords that are proposed by a candidate, whose
        peak hold ends at a sample.
        """
        self._model = metadata.name
        self._frame_samples = metadata.frame_samples
        self._hold_frames = self._frames(metadata, metadata.detector.hold_ms)
        self._separation_frames = self._frames(metadata, metadata.detector.separation_ms)
        self._keywords = {keyword.class_index: keyword for keyword in active}
        self._refractory_frames = {k.class_index: self._frames(metadata, k.refractory_ms) for k in active}
        infos = {k.class_index: metadata.keywords[k.keyword] for k in active}
        self._end_lag_samples = {i: metadata.samples_from_ms(info.end_lag_ms) for i, info in infos.items()}
        self._duration_samples = {i: metadata.samples_from_ms(info.duration_ms) for i, info in infos.items()}
        self._longest_end_lag = max(self._end_lag_samples.values(), default=0)
        # Inactive classes can never reach their threshold.
        self._thresholds = np.full(len(metadata.labels), np.inf, np.float32)  # [classes]
        self._final_scores = final_scores
        for keyword in active:
            self._thresholds[keyword.class_index] = keyword.threshold
            if final_scores is not None and metadata.verifier is not None:
                self._thresholds[keyword.class_index] = metadata.verifier.proposal_threshold

        self._smoothing_frames = metadata.detector.smoothing_frames
        self._frame = 0
        self._candidate: Candidate | None = None
        self._blocked: dict[int, int] = {}
        if snapshot is not None:
            self._frame = snapshot.frame
            self._candidate = snapshot.candidate
            self._blocked = dict(snapshot.blocked)
        self._blocked_frame = max(self._blocked.values(), default=0)  # no keyword is blocked from here on
        self._next_peak_frame = self._frame

    @staticmethod
    def _frames(metadata: ModelMetadata, milliseconds: float) -> int:
        return math.ceil(milliseconds * metadata.sample_rate_hz / 1000 / metadata.frame_samples)

    @property
    def frame(self) -> int:
        """The index of the next frame, which is the number of frames since the start of the stream."""
        return self._frame

    @property
    def decided_sample(self) -> int:
        """Every detection that ends before this sample has been returned. It never decreases."""
        frame = self._frame if self._candidate is None else self._candidate.frame
        return max(0, (frame + 1) * self._frame_samples - self._longest_end_lag)

    @property
    def next_decision_frame(self) -> int:
        """The frame before which no detection is possible, because of the smoothing and the peak hold."""
        peak = self._next_peak_frame if self._candidate is None else self._candidate.frame
        return peak + self._hold_frames

    @property
    def earliest_decision_frame(self) -> int:
        """The frame before which no detection is possible, even if the next scores do not follow on the last.

        That is so after audio that a gate has skipped.
        """
        return (self._frame if self._candidate is None else self._candidate.frame) + self._hold_frames

    def push(self, scores: Float32Array) -> list[Detection]:
        """Process the scores of the next frames, [frames, classes]; return the detections."""
        if not scores.shape[0]:
            return []
        detections: list[Detection] = []
        first = self._frame
        reached = scores >= self._thresholds  # [frames, classes]
        # Almost always no threshold is reached. That case must cost no more than the comparison.
        if np.count_nonzero(reached):
            rows, indices = np.nonzero(reached)
            reaching = scores[rows, indices].tolist()
            for row, index, score in zip(rows.tolist(), indices.tolist(), reaching, strict=True):
                self._decide_before(first + row, detections)
                self._update_candidate(first + row, index, score)
        self._frame += scores.shape[0]
        self._decide_before(self._frame, detections)
        self._next_peak_frame = self._find_next_peak(scores[-1])
        return detections

    def reaches_threshold(self, scores: Float32Array) -> bool:
        """Return whether any of the scores, [frames, classes], reaches its threshold."""
        return bool((scores >= self._thresholds).any())

    def push_constant(self, scores: Float32Array, frame_count: int) -> list[Detection]:
        """Process equal frames with these scores, [classes]; return the detections.

        The result is that of `push`, but the cost depends on the number of detections only.
        """
        indices = np.flatnonzero(scores >= self._thresholds).tolist()
        reaching = [(index, float(scores[index])) for index in indices]
        detections: list[Detection] = []
        end = self._frame + frame_count
        while self._frame < end:
            self._decide_before(self._frame, detections)
            for index, score in reaching:
                self._update_candidate(self._frame, index, score)
            # Nothing changes before the candidate is decided, or a refractory period ends.
            changes = [self._blocked.get(index, 0) for index, _ in reaching]
            if self._candidate is not None:
                changes.append(self._candidate.frame + self._hold_frames + 1)
            self._frame = min((frame for frame in changes if frame > self._frame), default=end)
        self._frame = end
        self._decide_before(end, detections)
        self._next_peak_frame = self._find_next_peak(scores)
        return detections

    def flush(self) -> list[Detection]:
        """Return the detection of the open candidate, if any, at the end of the stream."""
        return [] if self._candidate is None else self._decide(self._candidate, self._frame)

    def snapshot(self) -> DetectorSnapshot:
        """Return a copy of the state, from which another detector can continue."""
        blocked = {i: frame for i, frame in self._blocked.items() if frame > self._frame}
        return DetectorSnapshot(self._frame, self._candidate, tuple(sorted(blocked.items())))

    def can_reach(self, snapshot: DetectorSnapshot) -> bool:
        """Return whether a detector of these keywords can be in a state."""
        frame, candidate = snapshot.frame, snapshot.candidate
        if candidate is not None:
            proposed = [candidate.class_index, *(index for index, _ in candidate.rivals)]
            if (
                not frame - self._hold_frames <= candidate.frame < frame
                or (candidate.rivals and self._final_scores is None)
                or len(set(proposed)) != len(proposed)
                or not all(index in self._keywords for index in proposed)
            ):
                return False
        classes = [index for index, _ in snapshot.blocked]
        return len(set(classes)) == len(classes) and all(
            index in self._keywords
            and frame < until < frame + max(self._refractory_frames[index], self._separation_frames)
            for index, until in snapshot.blocked
        )

    def _find_next_peak(self, scores: Float32Array) -> int:
        """Return the first frame that could be a peak, after one with these scores, [classes].

        A score is a mean over `smoothing_frames`, so it rises by at most one of their shares per frame.
        """
        missing = self._thresholds - scores
        if self._frame >= self._blocked_frame:
            return self._frame + self._rising_frames(float(missing.min()))
        missing_by_class = missing.tolist()
        return min(
            max(self._frame + self._rising_frames(missing_by_class[index]), self._blocked.get(index, 0))
            for index in self._keywords
        )

    def _rising_frames(self, missing: float) -> int:
        """Return how many frames cannot be a peak if this much is missing to the threshold."""
        return max(0, math.ceil(min(missing, 1) * self._smoothing_frames - _ROUNDING) - 1)

    def _update_candidate(self, frame: int, index: int, score: float) -> None:
        """Open a candidate, or move its peak, if a keyword that reached its threshold has a higher score."""
        if self._blocked.get(index, 0) > frame:
            return
        candidate = self._candidate
        if candidate is None:
            self._candidate = Candidate(index, score, frame)
        elif score > candidate.score + PEAK_MARGIN:
            self._candidate = Candidate(index, score, frame, self._rivals(candidate, index))
        elif index != candidate.class_index and self._final_scores is not None:
            best = dict(candidate.rivals)
            if score > best.get(index, 0):
                best[index] = score
                self._candidate = replace(candidate, rivals=tuple(best.items()))

    def _rivals(self, candidate: Candidate, index: int) -> tuple[tuple[int, float], ...]:
        """Return the rivals of a candidate whose peak moves to a keyword: the one before it becomes one."""
        if self._final_scores is None:
            return ()
        before = ((candidate.class_index, candidate.score), *candidate.rivals)
        return tuple(one for one in before if one[0] != index)

    def _decide_before(self, frame: int, detections: list[Detection]) -> None:
        """Append the detection, if any, of the candidate if its peak hold ended before a frame."""
        candidate = self._candidate
        if candidate is not None and candidate.frame + self._hold_frames < frame:
            detections += self._decide(candidate, candidate.frame + self._hold_frames + 1)

    def _decide(self, candidate: Candidate, frame_count: int) -> list[Detection]:
        """Return the detection of a candidate, if it is one, after `frame_count` frames of the stream."""
        self._candidate = None
        proposed = candidate.proposed
        for index in self._keywords:
            blocked_frames = self._refractory_frames[index] if index in proposed else self._separation_frames
            self._blocked[index] = max(self._blocked.get(index, 0), candidate.frame + blocked_frames)
        self._blocked_frame = max(self._blocked.values())

        if self._final_scores is not None:
            hold_end = (candidate.frame + 1 + self._hold_frames) * self._frame_samples
            finals = self._final_scores(candidate, hold_end)
            proposed = {i: score for i, score in finals.items() if score >= self._keywords[i].threshold}
            if not proposed:
                return []
        index, score = max(proposed.items(), key=lambda one: one[1])
        end = max(0, (candidate.frame + 1) * self._frame_samples - self._end_lag_samples[index])
        keyword = self._keywords[index].keyword
        return [
            Detection(
                keyword=keyword,
                confidence=min(1.0, score),
                start_sample=max(0, end - self._duration_samples[index]),
                end_sample=end,
                id=f"{keyword}-{candidate.frame}",
                model=self._model,
                decided_sample=frame_count * self._frame_samples,
            )
        ]
