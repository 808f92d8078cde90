"""A mel spectrogram for display; it is not the front end of the model.

Mel scale: O'Shaughnessy, "Speech Communication", 1987.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

BANDS = 64
LOWEST_HZ, HIGHEST_HZ = 60.0, 8000.0
_WINDOW_S = 0.025
_RANGE_DB = 70.0
_BATCH_FRAMES = 1024

Bytes = np.ndarray[Any, np.dtype[np.uint8]]


def mel_spectrogram(samples: np.ndarray[Any, np.dtype[np.int16]], sample_rate_hz: int, columns: int) -> Bytes:
    """Return the power in mel bands over time, [BANDS, columns], lowest band first.

    The values 0 to 255 cover the loudest 70 dB of the recording. Bands above half the sample rate are 0.
    """
    window = max(2, round(_WINDOW_S * sample_rate_hz))
    size = 1 << (window - 1).bit_length()
    taper = np.hanning(window).astype(np.float32)
    bands = _bands(sample_rate_hz, size)  # [bins, BANDS]
    padded = np.pad(samples, (window // 2, window)).astype(np.float32) / 32768
    starts = np.linspace(0, len(samples), columns, endpoint=False).astype(int)
    power = np.empty((columns, BANDS), np.float32)
    for first in range(0, columns, _BATCH_FRAMES):
        batch = starts[first : first + _BATCH_FRAMES]
        frames = padded[batch[:, None] + np.arange(window)] * taper  # [batch, window]
        power[first : first + _BATCH_FRAMES] = np.square(np.abs(np.fft.rfft(frames, size))) @ bands
    db = 10 * np.log10(power + 1e-10)
    share = 1 + (db - np.percentile(db, 99.9)) / _RANGE_DB
    return np.ascontiguousarray((255 * np.clip(share, 0, 1)).astype(np.uint8).T)


def band_hz() -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the edges and centres of the bands in Hz, [BANDS + 2]: band i extends from i to i + 2."""
    lowest, highest = (2595 * math.log10(1 + hz / 700) for hz in (LOWEST_HZ, HIGHEST_HZ))
    hz: np.ndarray[Any, np.dtype[np.float64]] = 700 * (
        10 ** (np.linspace(lowest, highest, BANDS + 2) / 2595) - 1
    )
    return hz


def _bands(sample_rate_hz: int, size: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return the weights of the bands, [bins, BANDS]: triangles that sum to 1, so that no band is empty."""
    hz = band_hz()
    bins = np.fft.rfftfreq(size, 1 / sample_rate_hz)[:, None]  # [bins, 1]
    # At least as wide as a bin: bands of low frequencies would be narrower.
    half = np.maximum(hz[2:] - hz[:-2], 2 * sample_rate_hz / size) / 2
    triangles = np.clip(1 - np.abs(bins - hz[1:-1]) / half, 0, None)
    weights: np.ndarray[Any, np.dtype[np.float32]] = triangles / np.maximum(triangles.sum(axis=0), 1e-9)
    return weights.astype(np.float32)
