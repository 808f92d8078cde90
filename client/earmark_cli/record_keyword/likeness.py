"""How much takes of one word sound alike: the spectra of two words, aligned in time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Spectra = NDArray[np.float32]

_HOP_S, _WINDOW_S = 0.01, 0.025
_BANDS, _LOWEST_HZ, _HIGHEST_HZ = 24, 100.0, 7000.0
_COEFFICIENTS = 12
_FEWEST = 3
_UNLIKE = 1.4


def spectra(word: NDArray[np.float32], sample_rate_hz: int) -> Spectra:
    """Return the mel cepstra of a word [n], without their mean: [frames, 12], whatever the sample rate."""
    hop, window = int(_HOP_S * sample_rate_hz), int(_WINDOW_S * sample_rate_hz)
    padded = np.pad(word, (0, max(0, window - len(word))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop]
    power = np.square(np.abs(np.fft.rfft(frames * np.hanning(window), axis=1)))
    log_mel = np.log(power @ _mel_bands(window, sample_rate_hz) + 1e-9)
    angles = np.pi * np.outer(np.arange(_BANDS) + 0.5, np.arange(1, _COEFFICIENTS + 1)) / _BANDS
    cepstra = (log_mel @ np.cos(angles)).astype(np.float32)
    centered: Spectra = cepstra - cepstra.mean(0)
    return centered


def distance(first: Spectra, second: Spectra) -> float:
    """Return the mean distance of two words along their best alignment (dynamic time warping)."""
    cost = np.sqrt(np.square(first[:, np.newaxis] - second).sum(2))
    total = np.full((len(first) + 1, len(second) + 1), np.inf)
    total[0, 0] = 0.0
    for i, row in enumerate(cost.tolist()):
        above = total[i].tolist()
        left = np.inf
        for j, here in enumerate(row):
            left = total[i + 1, j + 1] = here + min(above[j], above[j + 1], left)
    return float(total[-1, -1] / (len(first) + len(second)))


def is_unlike(new: Spectra, others: Sequence[Spectra]) -> bool:
    """Return whether a word is much farther from the others than they are from each other.

    With fewer than three others, nothing is known. Of the fifth takes of 58 speakers of Speech Commands, each
    compared with the four before, 3% were unlike them; of 143 takes of another word by the same speaker, 96%.
    """
    if len(others) < _FEWEST:
        return False
    among = [
        np.median([distance(one, other) for j, other in enumerate(others) if j != i])
        for i, one in enumerate(others)
    ]
    return bool(np.median([distance(new, other) for other in others]) > _UNLIKE * np.median(among))


def _mel_bands(window: int, sample_rate_hz: int) -> NDArray[np.float64]:
    """Return the weights of the bins of a Fourier transform in each band, [bins, bands]."""
    lowest, highest = (2595 * np.log10(1 + hz / 700) for hz in (_LOWEST_HZ, _HIGHEST_HZ))
    edges = 700 * (10 ** (np.linspace(lowest, highest, _BANDS + 2) / 2595) - 1)
    hz = np.fft.rfftfreq(window, 1 / sample_rate_hz)[:, np.newaxis]
    rising = (hz - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - hz) / (edges[2:] - edges[1:-1])
    return np.clip(np.minimum(rising, falling), 0, None)
