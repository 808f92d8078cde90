"""The DET curve: miss rate against false alarms per hour (Martin et al. 1997), from peaks.

All thresholds are moved together, by the same step in log-odds, from their values in the model. So a peak
counts by its margin: how far it is above or below its keyword's threshold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from earmark_training.evaluation.log_odds import log_odds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from earmark_spotter.metadata import ModelMetadata
    from numpy.typing import NDArray

    from earmark_training.evaluation.peaks import Peaks


@dataclass(frozen=True, slots=True)
class DetCurve:
    """A DET curve: one more false alarm at each step, and a miss rate that falls.

    `fa_per_hour` [n], `miss_rate` [n]; `margins` [n]: how far the thresholds were moved, in log-odds.
    """

    fa_per_hour: NDArray[np.float64]
    miss_rate: NDArray[np.float64]
    margins: NDArray[np.float64]

    def miss_rate_at(self, fa_per_hour: float) -> float:
        """Return the miss rate at no more than `fa_per_hour` false alarms per hour."""
        allowed = int(np.searchsorted(self.fa_per_hour, fa_per_hour, side="right"))
        return float(self.miss_rate[max(0, allowed - 1)])

    def points(self, count: int = 60) -> list[list[float]]:
        """Return up to `count` points [false alarms per hour, miss rate], denser at the start."""
        last = len(self.miss_rate) - 1
        chosen = sorted({round(x) for x in np.geomspace(1, last + 1, count) - 1}) if last > 0 else [0]
        return [[round(float(self.fa_per_hour[i]), 3), round(float(self.miss_rate[i]), 4)] for i in chosen]


def det_curve(metadata: ModelMetadata, words: Peaks, speech: Peaks, keywords: Sequence[str]) -> DetCurve:
    """Return the curve of some keywords together, from spoken words and from peaks in other speech."""
    thresholds = {k: log_odds(metadata.keywords[k].threshold) for k in keywords}
    # A word without any peak is missed at every threshold.
    word_margins = np.sort(
        np.concatenate(
            [
                np.where(words.words[k] > 0, log_odds(words.words[k]) - thresholds[k], -np.inf)
                for k in keywords
            ]
        )
    )
    alarm_margins = np.concatenate([log_odds(speech.alarms[k]) - thresholds[k] for k in keywords])
    # At margin i there are i false alarms: the thresholds are just above the next one.
    margins = np.append(np.sort(alarm_margins)[::-1], -np.inf)
    miss_rate = np.searchsorted(word_margins, margins, side="right") / max(1, len(word_margins))
    return DetCurve(np.arange(len(margins)) / max(1e-9, speech.hours), miss_rate, margins)
