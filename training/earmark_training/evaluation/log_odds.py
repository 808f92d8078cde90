"""Log-odds: the scale on which scores and thresholds are compared."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def log_odds(score: NDArray[np.floating] | float) -> NDArray[np.float64]:
    """Return the log-odds of scores, clipped to 1e-6 from 0 and 1: any shape, the same shape."""
    p = np.clip(np.asarray(score, np.float64), 1e-6, 1 - 1e-6)
    odds: NDArray[np.float64] = np.log(p / (1 - p))
    return odds


def probability(odds: float) -> float:
    """Return the score with the given log-odds."""
    return float(1 / (1 + np.exp(-odds)))
