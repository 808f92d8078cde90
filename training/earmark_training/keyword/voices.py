"""Whether the recordings of a keyword are of several voices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from earmark_training.keyword.band_spectrum import band_power

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from earmark_training.keyword.recordings import KeywordRecording

ONE_VOICE_DB = 6.0
"""Recordings whose `voice_spread_db` is lower are of one voice."""


def voice_spread_db(recordings: Sequence[KeywordRecording]) -> float:
    """Return how much the mean spectra of the recordings differ: the median over all pairs, in dB.

    The same voice and microphone have nearly the same mean spectrum each time they say the same word.
    """
    spectra = np.stack([_mean_spectrum_db(r.samples[slice(*r.word)]) for r in recordings])
    first, second = np.triu_indices(len(recordings), 1)
    return float(np.median(np.sqrt(np.square(spectra[first] - spectra[second]).mean(1))))


def _mean_spectrum_db(word: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the mean level of each band over the louder half of a word, in dB, with mean 0, [bands]."""
    level: NDArray[np.float64] = 10 * np.log10(band_power(word) + 1e-9)
    loud = level.mean(1) >= np.median(level.mean(1))
    spectrum: NDArray[np.float64] = level[loud].mean(0)
    spectrum -= spectrum.mean()
    return spectrum
