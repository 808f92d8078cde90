"""A mel spectrogram to look at, with the mel scale of O'Shaughnessy (1987); not the model's own front end."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

BANDS = 64
LOWEST_HZ, HIGHEST_HZ = 60.0, 8000.0
_WINDOW_S = 0.025
_RANGE_DB = 70.0
_AT_ONCE = 1024

Bytes = np.ndarray[Any, np.dtype[np.uint8]]


def mel_spectrogram(samples: np.ndarray[Any, np.dtype[np.int16]], sample_rate_hz: int, columns: int) -> Bytes:
    """Give the power in mel bands at so many moments, [BANDS, columns], lowest band first.

    0 to 255 are the loudest 70 dB of the recording; bands above half the sample rate stay 0.
    """
    window = max(2, round(_WINDOW_S * sample_rate_hz))
    size = 1 << (window - 1).bit_length()
    taper = np.hanning(window).astype(np.float32)
    bands = _bands(sample_rate_hz, size)  # [bins, BANDS]
    padded = np.pad(samples, (window // 2, window)).astype(np.float32) / 32768
    starts = np.linspace(0, len(samples), columns, endpoint=False).astype(int)
    power = np.empty((columns, BANDS), np.float32)
    for first in range(0, columns, _AT_ONCE):
        some = starts[first : first + _AT_ONCE]
        frames = padded[some[:, None] + np.arange(window)] * taper  # [some, window]
        power[first : first + _AT_ONCE] = np.square(np.abs(np.fft.rfft(frames, size))) @ bands
    db = 10 * np.log10(power + 1e-10)
    share = 1 + (db - np.percentile(db, 99.9)) / _RANGE_DB
    return np.ascontiguousarray((255 * np.clip(share, 0, 1)).astype(np.uint8).T)


def band_hz() -> np.ndarray[Any, np.dtype[np.float64]]:
    """Give the bands' edges and centres in Hz, [BANDS + 2]: band i reaches from i to i + 2."""
    lowest, highest = (2595 * math.log10(1 + hz / 700) for hz in (LOWEST_HZ, HIGHEST_HZ))
    hz: np.ndarray[Any, np.dtype[np.float64]] = 700 * (
        10 ** (np.linspace(lowest, highest, BANDS + 2) / 2595) - 1
    )
    return hz


def _bands(sample_rate_hz: int, size: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Give triangles over the spectrum's bins, [bins, BANDS]; each sums to 1, so that none is empty."""
    hz = band_hz()
    bins = np.fft.rfftfreq(size, 1 / sample_rate_hz)[:, None]  # [bins, 1]
    # As wide as a bin at least: at low frequencies bands are narrower.
    half = np.maximum(hz[2:] - hz[:-2], 2 * sample_rate_hz / size) / 2
    triangles = np.clip(1 - np.abs(bins - hz[1:-1]) / half, 0, None)
    weights: np.ndarray[Any, np.dtype[np.float32]] = triangles / np.maximum(triangles.sum(axis=0), 1e-9)
    return weights.astype(np.float32)
