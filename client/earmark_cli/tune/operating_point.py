"""Operating points of a keyword: its misses and false alarms at any threshold.

A detection at a threshold is, to a good approximation, a peak of the score that reaches it. One pass over
the recordings therefore gives the misses and false alarms at all thresholds. That a detection suppresses
other keywords for a moment is ignored.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from earmark_audio.peak_picker import pick_peaks

if TYPE_CHECKING:
    from earmark_client.events import ActiveKeyword

    from earmark_cli.score_track import Floats, ScoreTrack

_MIN_PEAK = 0.05  # lower peaks are ignored, no threshold is lower
MIN_RECORDINGS = 30
"""With fewer recordings of a keyword, the share that a threshold misses is a guess."""

# "Rule of three" (Hanley and Lippman-Hand 1983): no event in a time t shows, with 95% confidence, a rate
# below 3/t.
_RULE_OF_THREE = 3.0
_DET_THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """A threshold, its number of missed recordings, and its number of false alarms."""

    threshold: float
    missed: int
    alarms: int


@dataclass(slots=True)
class KeywordScores:
    """The scores of one keyword in all recordings.

    `recording_scores`: highest score in each recording of the keyword. `other_peaks`: all peaks in audio
    without the keyword, of which there are `other_hours`.
    """

    active: ActiveKeyword
    recording_scores: list[float] = field(default_factory=list)
    other_peaks: list[float] = field(default_factory=list)
    other_hours: float = 0.0

    def operating_point(self, threshold: float) -> OperatingPoint:
        """Return the operating point of a threshold."""
        return OperatingPoint(
            threshold,
            sum(score < threshold for score in self.recording_scores),
            sum(score >= threshold for score in self.other_peaks),
        )

    @property
    def current(self) -> OperatingPoint:
        """The operating point of the model's threshold."""
        return self.operating_point(self.active.threshold)

    def det_points(self) -> list[OperatingPoint]:
        """Return points of the DET curve, by rising threshold."""
        return [self.operating_point(threshold) for threshold in _DET_THRESHOLDS]

    @property
    def lowest_rate(self) -> float:
        """The upper bound (95%) on the false alarms per hour if the other audio has none."""
        return _RULE_OF_THREE / self.other_hours if self.other_hours else math.inf

    def misses_by_alarms(self) -> list[int]:
        """Return the DET curve: the fewest misses with 0, 1, 2, ... false alarms, up to all peaks."""
        recording_scores = sorted(self.recording_scores)
        return [
            bisect_right(recording_scores, score)
            for score in [*sorted(self.other_peaks, reverse=True), _MIN_PEAK]
        ]

    def point_for(self, alarms_per_hour: float) -> OperatingPoint:
        """Return the operating point with the fewest misses and at most this many false alarms per hour.

        Of all thresholds with the fewest misses it has the fewest false alarms, and is the one in the middle,
        in log-odds, between the highest peak to reject and the lowest recording to detect. Without
        recordings, or without other audio, it is the current threshold.
        """
        if not self.recording_scores or not self.other_hours:
            return self.current
        allowed = math.floor(alarms_per_hour * self.other_hours)
        peaks = [*sorted(self.other_peaks, reverse=True), _MIN_PEAK]
        highest_rejected = peaks[min(allowed, len(peaks) - 1)]
        lowest_detected = min(
            (score for score in self.recording_scores if score > highest_rejected), default=highest_rejected
        )
        highest_rejected = max(peak for peak in peaks if peak < lowest_detected or peak == highest_rejected)
        middle = (_log_odds(highest_rejected) + _log_odds(lowest_detected)) / 2
        # Rounded up to four digits, so that it does not fall to the highest rejected peak.
        threshold = math.ceil(10_000 / (1 + math.exp(-middle))) / 10_000
        return self.operating_point(min(0.9999, threshold))

    def proposal_for(self, alarms_per_hour: float) -> OperatingPoint:
        """Return `point_for`, or the current threshold where the recordings do not support another one.

        A lower threshold needs enough other audio to show the allowed rate. A higher one needs
        false alarms to avoid, or enough recordings to show that it misses few.
        """
        current, best = self.current, self.point_for(alarms_per_hour)
        if best.threshold < current.threshold:
            supported = self.lowest_rate <= alarms_per_hour
        else:
            supported = (
                current.alarms > alarms_per_hour * self.other_hours
                or len(self.recording_scores) >= MIN_RECORDINGS
            )
        return best if supported else current

    @property
    def useful_alarms(self) -> int:
        """The fewest false alarms with the fewest misses: where the DET curve stops falling."""
        curve = self.misses_by_alarms()
        return curve.index(curve[-1])


def hours_for(alarms_per_hour: float) -> float:
    """Return the hours of audio without a keyword that can show this rate of false alarms."""
    return _RULE_OF_THREE / alarms_per_hour


def peak_scores(track: ScoreTrack, column: int) -> Floats:
    """Return the scores of a keyword's peaks; of two within its refractory period, only the higher one."""
    scores = track.scores[:, column]
    refractory_s = track.started.keywords[column].refractory_s
    frames = max(1, math.ceil(refractory_s / track.started.step_s - 1e-6))
    return scores[pick_peaks(scores, lowest=_MIN_PEAK, before=frames - 1, after=frames)]


def _log_odds(score: float) -> float:
    clipped = min(1 - 1e-4, max(1e-4, score))
    return math.log(clipped / (1 - clipped))
