"""Scores and peaks for the keywords of the tiny model, written by hand."""

from __future__ import annotations

import numpy as np

from support.tiny_model import LABELS

FRAME_SAMPLES = 320


def scores_with_peaks(length: int, **peaks: list[tuple[int, float]]) -> np.ndarray:
    """Return scores [length, classes] of 0 with triangular peaks, given by keyword as (frame, height)."""
    out = np.zeros((length, len(LABELS)), np.float32)
    for keyword, keyword_peaks in peaks.items():
        for frame, height in keyword_peaks:
            for offset, share in ((-1, 0.8), (0, 1.0), (1, 0.8)):
                out[frame + offset, LABELS.index(keyword)] = height * share
    return out


def by_keyword(low: list[float], mid: list[float], high: list[float]) -> dict[str, np.ndarray]:
    """Return the heights of peaks by keyword, as `Peaks` has them."""
    return {k: np.array(v, np.float32) for k, v in {"low": low, "mid": mid, "high": high}.items()}
