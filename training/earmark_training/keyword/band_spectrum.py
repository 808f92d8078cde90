"""The spectrum of speech in bands, for comparisons of words and of voices."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from earmark_training.data.corpus import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from numpy.typing import NDArray

HOP = 160
"""The distance of frames in samples."""

_SIZE = 512
_EDGES = np.rint(np.geomspace(100, 7000, 25) * _SIZE / SAMPLE_RATE_HZ).astype(int)


def band_power(samples: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the power in 24 bands from 100 Hz to 7 kHz, [frames, bands], of samples at 16 kHz."""
    padded = np.pad(samples, (0, max(0, _SIZE - len(samples))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, _SIZE)[::HOP] * np.hanning(_SIZE)
    power = np.square(np.abs(np.fft.rfft(frames)))
    return np.stack([power[:, a : max(a + 1, b)].sum(1) for a, b in pairwise(_EDGES)], 1)
