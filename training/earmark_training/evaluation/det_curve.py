"""The trade between misses and false alarms (the DET curve; Martin et al. 1997), from peaks.

All thresholds are moved together, by the same step in log-odds, from where they are in the model: what
counts is how far a peak lies above or below its keyword's own threshold, its margin.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from earmark_training.evaluation.operating_point import logit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from earmark_spotter.metadata import ModelMetadata
    from numpy.typing import NDArray

    from earmark_training.evaluation.peaks import Peaks


@dataclass(frozen=True, slots=True)
class Curve:
    """A DET curve: at each step one more false alarm, and the share of words missed, falling.

    `alarms_per_hour` [n], `missed` [n]; `margins` [n]: how far the thresholds were moved, in log-odds.
    """

    alarms_per_hour: NDArray[np.float64]
    missed: NDArray[np.float64]
    margins: NDArray[np.float64]

    def missed_at(self, alarms_per_hour: float) -> float:
        """Return the share missed at no more than so many false alarms an hour."""
        allowed = int(np.searchsorted(self.alarms_per_hour, alarms_per_hour, side="right"))
        return float(self.missed[max(0, allowed - 1)])

    def points(self, count: int = 60) -> list[list[float]]:
        """Return up to `count` points [false alarms per hour, share missed], close together at the start."""
        last = len(self.missed) - 1
        chosen = sorted({round(x) for x in np.geomspace(1, last + 1, count) - 1}) if last > 0 else [0]
        return [[round(float(self.alarms_per_hour[i]), 3), round(float(self.missed[i]), 4)] for i in chosen]


def curve(metadata: ModelMetadata, words: Peaks, alarms: Peaks, keywords: Sequence[str]) -> Curve:
    """Return the curve of some keywords together, from the words of one and the alarms of the other."""
    thresholds = {k: logit(metadata.keywords[k].threshold) for k in keywords}
    # Words without any peak are missed at every threshold.
    said = np.sort(
        np.concatenate(
            [np.where(words.words[k] > 0, logit(words.words[k]) - thresholds[k], -np.inf) for k in keywords]
        )
    )
    false = np.sort(np.concatenate([logit(alarms.alarms[k]) - thresholds[k] for k in keywords]))[::-1]
    # At the i-th margin, i alarms are let through: the threshold lies just above the next alarm.
    above = np.append(false, -np.inf)
    missed = np.searchsorted(said, above, side="right") / max(1, len(said))
    return Curve(np.arange(len(above)) / max(1e-9, alarms.hours), missed, above)
