"""Whether recordings are alike as they should be: one word, but more than one voice."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias, cast

import numpy as np
import torch

from earmark_training.data.corpus import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from earmark_training.keyword.recordings import Take
    from earmark_training.model.network import Network

_POINTS = 8  # of a word, from its first quarter to a little after its end
_LAG_S = 0.2
_CUTS = 4  # pieces of each background recording
_BANDS_HZ = np.geomspace(100, 7000, 25)
ONE_VOICE_DB = 6.0
"""Below this median difference between their spectra, recordings are one voice's."""
SAME_WORD = 0.2
"""Below this usual likeness, recordings are not of one word."""

_ODD_FRACTION = 0.3
_DOUBTFUL_FRACTION = 0.45
_TWO_WORDS = 0.22
_FEWEST = 2  # recordings that can be a word of their own
_BATCH = 32

_Word: TypeAlias = "tuple[NDArray[np.float32], tuple[int, int]]"
"""A recording, and the samples in it between which the word is."""


@torch.no_grad()
def body_frames(network: Network, sounds: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return what the body makes of recordings, [n, frames, channels], one frame each `frame_samples`.

    Those that are shorter than the longest go on in silence. All of the body but its last block, which knows
    the network's own words too well: with it, of 96 folders of one word four would be refused, without it
    none, and more strangers are found.
    """
    shape = network.shape
    before = shape.unsmoothed_field_samples - shape.frame_samples
    frames = math.ceil(max(len(samples) for samples in sounds) / shape.frame_samples)
    after = frames * shape.frame_samples
    padded = np.stack([np.pad(samples, (before, after - len(samples))) for samples in sounds])
    mel = network.normalize(network.log_mel(torch.from_numpy(padded)))
    return cast("NDArray[np.float32]", network.body(mel, without_last=1)[-frames:].transpose(0, 1).numpy())


def compare(
    network: Network, takes: Sequence[Take], background: Sequence[NDArray[np.float32]]
) -> NDArray[np.float64]:
    """Return how much each two recordings' words are alike, [n, n]: 1 the same, 0 not at all.

    A word is what the network's body makes of it at eight times from its beginning to its end. What any
    word has (a silence before it and after it, some vowel in between) does not count: pieces as long as
    the word, cut out of the speech in `background`, say what that is.
    """
    length = int(np.median([t.word[1] - t.word[0] for t in takes]))
    rng = np.random.default_rng(0)
    others = _embed(network, [_cut_out(rng, b, length) for b in background for _ in range(_CUTS)])
    words = _embed(network, [(t.samples, t.word) for t in takes])
    words = (words - others.mean(0)) / (others.std(0) + 1e-3)
    words /= np.linalg.norm(words, axis=1, keepdims=True)
    alike: NDArray[np.float64] = words @ words.T
    return alike


def usual_likeness(alike: NDArray[np.float64]) -> float:
    """Return how much a recording is like the others on average, for most of them (the median)."""
    return float(np.median(_likeness(alike)))


def odd_ones(alike: NDArray[np.float64]) -> list[int]:
    """Return which recordings are much less like the others than is usual: hardly of the same word.

    Measured on `computer` and `jarvis` with 12, 30 and 100 recordings, sixteen draws each: 0% to 0.5% of a
    word's own are taken for strangers; where one in ten is of another word, 56% to 88% of those are found. To
    take more of a word's own for strangers is worse than to miss some: it is those that are hard to hear.
    """
    likeness = _likeness(alike)
    return np.flatnonzero(likeness < _ODD_FRACTION * np.median(likeness)).tolist()


def doubtful_ones(alike: NDArray[np.float64]) -> list[int]:
    """Return which recordings somebody should listen to: they may be of another word.

    The odd ones and others that are less like the rest than is usual (0% to 3% of a word's own, 86% to 100%
    of the strangers, where they are one in ten); and, where the recordings fall into two groups that are
    alike within but not between them, the smaller group. Where a third is of another word, these are more
    than a fifth of all in 75 to 100 of a hundred folders; in none of 96 folders of one word.
    """
    likeness = _likeness(alike)
    doubtful = set(np.flatnonzero(likeness < _DOUBTFUL_FRACTION * np.median(likeness)).tolist())
    return sorted(doubtful | set(np.flatnonzero(_smaller_group(alike)).tolist()))


def _likeness(alike: NDArray[np.float64]) -> NDArray[np.float64]:
    among: NDArray[np.float64] = (alike.sum(1) - alike.diagonal()) / max(1, len(alike) - 1)
    return among


def _smaller_group(alike: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return the members of the smaller one of two groups, [n]; none where the recordings are one group.

    The groups begin as the two sides of the first principal component; then everybody joins the group that
    it is more like, until nobody moves.
    """
    count = len(alike)
    nobody = np.zeros(count, bool)
    if count < 2 * _FEWEST:
        return nobody
    other = alike * ~np.eye(count, dtype=bool)
    centred = other - other.mean(0) - other.mean(1)[:, None] + other.mean()
    group = np.linalg.eigh(centred)[1][:, -1] > 0
    for _ in range(count):
        sizes = np.stack(((group.sum() - group), (~group).sum() - ~group))
        if sizes.max(1).min() < _FEWEST:
            return nobody
        first, second = other @ group / np.maximum(1, sizes[0]), other @ ~group / np.maximum(1, sizes[1])
        if ((first > second) == group).all():
            break
        group = first > second
    size = int(group.sum())
    if not _FEWEST <= size <= count - _FEWEST:
        return nobody
    inside = np.equal.outer(group, group)
    pairs = size * (size - 1) + (count - size) * (count - size - 1)
    within, between = (other * inside).sum() / pairs, other[~inside].mean()
    if between > _TWO_WORDS * within:
        return nobody
    return group if size <= count / 2 else ~group


def _cut_out(rng: np.random.Generator, speech: NDArray[np.float32], length: int) -> _Word:
    """Return a piece of speech between two silences of half a second, and where it is."""
    at = int(rng.integers(max(1, len(speech) - length)))
    piece = speech[at : at + length]
    silence = SAMPLE_RATE_HZ // 2
    return np.pad(piece, silence), (silence, silence + len(piece))


def _embed(network: Network, words: Sequence[_Word]) -> NDArray[np.float64]:
    """Return what the body makes of each word, at `_POINTS` times, [n, _POINTS * channels]."""
    embeddings = []
    for first in range(0, len(words), _BATCH):
        batch = words[first : first + _BATCH]
        frames = body_frames(network, [np.pad(samples, (0, SAMPLE_RATE_HZ // 2)) for samples, _ in batch])
        for own, (_, (start, end)) in zip(frames, batch, strict=True):
            times = np.linspace(start + (end - start) / 4, end + _LAG_S * SAMPLE_RATE_HZ, _POINTS)
            numbers = np.rint(times / network.shape.frame_samples).astype(int)
            embeddings.append(own[numbers].ravel())
    return np.stack(embeddings).astype(np.float64)


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
    spectrum -= spectrum.mean()
    return spectrum
