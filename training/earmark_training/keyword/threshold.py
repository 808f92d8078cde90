"""The threshold of a keyword, from how speech without it scores, guarded against what chance put there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from earmark_training.evaluation.operating_point import logit

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TAIL = 30
"""Peaks that the tail is fitted to: few enough to be the tail, enough not to follow one of them.

Thresholds for 0.5 alarms an hour, chosen on the speech of half of 15 speakers (1.2 h), gave on the others'
0.6 to 0.8 with 20 peaks, 0.3 to 0.7 with 40, and 1.2 to 1.5 with 8 (two words, 200 random halves each).
"""
_LOWEST, _HIGHEST = 0.3, 0.995


def threshold_at(peaks: NDArray[np.float64], hours: float, alarms_per_hour: float) -> float:
    """Return the score that so many peaks an hour are expected to exceed.

    `peaks` are the keyword's highest scores wherever something sounded like it, in `hours` of speech
    without it. A few hours hold too few alarms to count: at 0.5 an hour the threshold would be the second
    highest peak, which is chance. So the highest peaks are taken for a sample of an exponential tail in
    log-odds (peaks over threshold; Davison and Smith 1990), and the threshold is where that has fallen to
    the rate.
    """
    wanted = max(1e-9, alarms_per_hour * hours)
    odds = np.sort(logit(peaks))[::-1]
    tail = min(_TAIL, len(odds) - 1)
    if tail < 3:
        return _LOWEST
    if wanted >= tail:
        at = float(odds[min(len(odds) - 1, int(wanted))])
    else:
        base = float(odds[tail])
        at = base + float((odds[:tail] - base).mean()) * np.log(tail / wanted)
    return float(np.clip(1 / (1 + np.exp(-at)), _LOWEST, _HIGHEST))


def alarms_per_hour_at(peaks: NDArray[np.float64], hours: float, threshold: float) -> float:
    """Return how many peaks an hour reach a threshold."""
    return float((peaks >= threshold).sum() / hours)
