"""Whether recordings are alike as they should be: one word, but more than one voice."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, cast

import numpy as np
import torch

from earmark_training.corpus import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from earmark_training.keyword.recordings import Take
    from earmark_training.network import Network

_POINTS = 8  # of a word, from its first quarter to a little after its end
_LAG_S = 0.2
_BANDS_HZ = np.geomspace(100, 7000, 25)
ONE_VOICE_DB = 6.0
"""Below this median difference between their spectra, recordings are one voice's."""
ODD_FRACTION = 0.35
"""A recording is odd if it is like the others by less than this fraction of what is usual for them."""
SAME_WORD = 0.2
"""Below this median likeness, recordings are not of one word."""


@torch.no_grad()
def body_frames(network: Network, samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what the body makes of a recording, [frames, channels], one frame each `frame_samples`."""
    shape = network.shape
    seen = shape.receptive_field_samples - (shape.smoothing_frames - 1) * shape.frame_samples
    padded = np.pad(samples, (seen - shape.frame_samples, -len(samples) % shape.frame_samples))
    mel = network.normalize(network.log_mel(torch.from_numpy(padded[None])))
    x = network.embed(mel)
    for block in network.blocks:
        x = block(x)
    return cast("NDArray[np.float32]", x[:, 0].numpy())


def likeness(
    network: Network, takes: Sequence[Take], background: Sequence[NDArray[np.float32]]
) -> NDArray[np.float64]:
    """Return how much each recording's word is like the others', on average: 1 the same, 0 not at all.

    A word is what the network's body makes of it at eight times from its beginning to its end; the
    recordings in `background` say what is usual in speech, so that only what is special counts.
    """
    usual = np.concatenate([body_frames(network, b) for b in background])
    mean, spread = usual.mean(0), usual.std(0) + 1e-3
    frame = network.shape.frame_samples
    words = []
    for take in takes:
        frames = body_frames(network, np.pad(take.samples, (0, SAMPLE_RATE_HZ // 2)))
        start, end = take.word
        times = np.linspace(start + (end - start) / 4, end + _LAG_S * SAMPLE_RATE_HZ, _POINTS) / frame
        word = ((frames[np.minimum(np.rint(times).astype(int), len(frames) - 1)] - mean) / spread).ravel()
        words.append(word / np.linalg.norm(word))
    cosines = np.stack(words).astype(np.float64) @ np.stack(words).T
    others: NDArray[np.float64] = (cosines.sum(1) - 1) / max(1, len(takes) - 1)
    return others


def odd_ones(likenesses: NDArray[np.float64]) -> list[int]:
    """Return which recordings are less like the others than their word can be."""
    return np.flatnonzero(likenesses < ODD_FRACTION * np.median(likenesses)).tolist()


def voice_spread_db(takes: Sequence[Take]) -> float:
    """Return how different the recordings' mean spectra are: the median difference over all pairs, in dB.

    A voice and its microphone have much the same mean spectrum each time that they say the same word.
    """
    spectra = np.stack([_mean_spectrum_db(t.samples[slice(*t.word)]) for t in takes])
    first, second = np.triu_indices(len(takes), 1)
    return float(np.median(np.sqrt(np.square(spectra[first] - spectra[second]).mean(1))))


def _mean_spectrum_db(word: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the mean level in each band, in dB, over the louder half of a word; the mean of all is 0."""
    size, hop = 512, 160
    padded = np.pad(word, (0, max(0, size - len(word))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop] * np.hanning(size)
    power = np.square(np.abs(np.fft.rfft(frames)))
    edges = np.rint(_BANDS_HZ * size / SAMPLE_RATE_HZ).astype(int)
    bands = np.stack([power[:, a : max(a + 1, b)].sum(1) for a, b in pairwise(edges)], axis=1)
    level: NDArray[np.float64] = 10 * np.log10(bands + 1e-9)
    loud = level.mean(1) >= np.median(level.mean(1))
    spectrum: NDArray[np.float64] = level[loud].mean(0)
    return np.subtract(spectrum, spectrum.mean())
