"""Find a word in a sentence of the same voice: subsequence dynamic time warping of their spectra."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from earmark_training.data.corpus import SAMPLE_RATE_HZ
from earmark_training.keyword.band_spectrum import HOP, band_power
from earmark_training.keyword.kokoro import PAD_S

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MAX_STRETCH = 1.8


def find_word(word: NDArray[np.float32], sentence: NDArray[np.float32]) -> tuple[int, int] | None:
    """Return where a word, read alone with PAD_S of silence around it, is in a sentence, in samples.

    Return None if the place is unlikely: much longer or shorter than the word.
    """
    pad = int(PAD_S * SAMPLE_RATE_HZ)
    first, second = _spectrum(word[pad : len(word) - pad]), _spectrum(sentence)
    costs = 1 - first @ second.T  # (word frames, sentence frames)
    total = np.full(costs.shape, np.inf)
    starts = np.zeros(costs.shape, int)
    total[0], starts[0] = costs[0], np.arange(costs.shape[1])
    for i in range(1, len(costs)):
        for j in range(1, costs.shape[1]):
            # Each step advances in the word, by at most two frames in the sentence.
            choices = ((i - 1, j), (i - 1, j - 1), (i - 1, j - 2)) if j > 1 else ((i - 1, j), (i - 1, j - 1))
            best = min(choices, key=lambda c: float(total[c]))
            total[i, j], starts[i, j] = total[best] + costs[i, j], starts[best]
    end = int(total[-1].argmin())
    start, end = int(starts[-1, end]) * HOP, (end + 1) * HOP
    stretch = (end - start) / (len(word) - 2 * pad)
    return (start, end) if 1 / _MAX_STRETCH < stretch < _MAX_STRETCH else None


def _spectrum(samples: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the log spectrum in bands, [frames, bands], each of norm 1."""
    level = np.log(band_power(samples) + 1e-4)
    level -= level.mean(0)
    normalized: NDArray[np.float64] = level / (np.linalg.norm(level, axis=1, keepdims=True) + 1e-6)
    return normalized
