"""The peaks of a score over time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def pick_peaks(
    score: NDArray[np.floating[Any]], *, lowest: float, before: int, after: int, count: int | None = None
) -> NDArray[np.int64]:
    """Return the frames of the highest peaks of a score [frames], highest first; `count` of them if given.

    Each peak suppresses the frames from `before` frames before it until `after` frames after it, exclusive.
    Scores below `lowest` are not peaks.
    """
    candidates = np.flatnonzero(score >= lowest)
    free = np.ones(len(score), bool)
    peaks: list[int] = []
    for frame in candidates[np.argsort(-score[candidates], kind="stable")].tolist():
        if len(peaks) == count:
            break
        if free[frame]:
            peaks.append(frame)
            free[max(0, frame - before) : frame + after] = False
    return np.array(peaks, np.int64)
