"""Thresholds from recordings: the highest scores where a keyword is said, and the peaks where it is not.

A detection at a threshold is, very nearly, a peak that reaches it, so misses and false alarms at every
threshold come from one pass. What keywords do to one another (one that is heard makes the others deaf for
a moment) is left out.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from earmark_client.events import ActiveKeyword

    from earmark_cli.plot.scores import Floats, Heard

_LOWEST_PEAK = 0.05  # below it no threshold lies
_CURVE = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)


@dataclass(slots=True)
class Evidence:
    """What was heard of one keyword.

    `said`: its highest score in each of its recordings. `peaks`: the scores of all its peaks in audio
    that does not have it, of which there are `hours`.
    """

    active: ActiveKeyword
    said: list[float] = field(default_factory=list)
    peaks: list[float] = field(default_factory=list)
    hours: float = 0.0

    def point(self, threshold: float) -> Point:
        """Count what a threshold misses, and its false alarms."""
        return Point(
            threshold,
            sum(score < threshold for score in self.said),
            sum(score >= threshold for score in self.peaks),
        )

    def curve(self) -> list[Point]:
        """Give the trade between misses and false alarms, by rising threshold."""
        return [self.point(threshold) for threshold in _CURVE]

    def trade(self) -> list[int]:
        """Count what must be missed for no false alarm, for at most one, and so on up to all peaks."""
        said = sorted(self.said)
        return [bisect_right(said, score) for score in [*sorted(self.peaks, reverse=True), _LOWEST_PEAK]]

    def proposed(self, alarms_per_hour: float) -> Point:
        """Give the threshold that misses least with no more than so many false alarms an hour.

        Of all that miss no more it is the middle one, in log-odds: as far from the recordings that are
        heard as from the peak that must not be. Without any audio to give false alarms, or without
        recordings, it is the one in force.
        """
        if not self.said or not self.hours:
            return self.point(self.active.threshold)
        allowed = math.floor(alarms_per_hour * self.hours)
        refused = sorted(self.peaks, reverse=True)[allowed:]
        lowest = max(refused, default=_LOWEST_PEAK)
        heard = [score for score in self.said if score > lowest]
        middle = (_logit(lowest) + _logit(min(heard, default=lowest))) / 2
        # Four digits, and never down onto the peak that is to be refused.
        threshold = math.ceil(10_000 / (1 + math.exp(-middle))) / 10_000
        return self.point(min(0.9999, threshold))


@dataclass(frozen=True, slots=True)
class Point:
    """A threshold, and how many recordings it misses and false alarms it gives."""

    threshold: float
    missed: int
    alarms: int


def peaks(heard: Heard, column: int) -> Floats:
    """Give the scores of a keyword's peaks; of two closer than its refractory time the higher one counts."""
    scores = heard.scores[:, column]
    deaf = max(1, math.ceil(heard.started.keywords[column].refractory_s / heard.started.step_s - 1e-6))
    free = np.ones(len(scores), bool)
    found = []
    candidates = np.flatnonzero(scores >= _LOWEST_PEAK)
    for frame in candidates[np.argsort(-scores[candidates], kind="stable")].tolist():
        if free[frame]:
            found.append(scores[frame])
            free[max(0, frame - deaf + 1) : frame + deaf] = False
    return np.array(found, np.float32)


def _logit(score: float) -> float:
    clipped = min(1 - 1e-4, max(1e-4, score))
    return math.log(clipped / (1 - clipped))
