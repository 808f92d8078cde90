"""Outliers: recordings that do not sound like the same word as the others."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeAlias, cast

import numpy as np
import torch

from earmark_training.data.corpus import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from earmark_training.keyword.recordings import KeywordRecording
    from earmark_training.model.network import Network

MIN_TYPICAL_SIMILARITY = 0.2
"""Recordings whose `typical_similarity` is lower are not of one word."""

_POINTS = 8  # of a word, from its first quarter until shortly after its end
_LAG_S = 0.2
_PIECES = 4  # of each background recording
_OUTLIER_FRACTION = 0.3
_SUSPECT_FRACTION = 0.45
_TWO_WORDS = 0.22
_MIN_GROUP = 2
_BATCH = 32

_Word: TypeAlias = "tuple[NDArray[np.float32], tuple[int, int]]"
"""Samples of a recording, and the start and end of the word in them."""


def similarities(
    network: Network, recordings: Sequence[KeywordRecording], background: Sequence[NDArray[np.float32]]
) -> NDArray[np.float64]:
    """Return the similarity of the words of each two recordings, [n, n]: 1 for the same, 0 for unrelated.

    A word is represented by the output of the network's body at eight times from its beginning to its end,
    normalised by that of pieces of the `background` speech of the same length: what all words have in common
    (silence before and after, some vowel between) does not count.
    """
    length = int(np.median([r.word[1] - r.word[0] for r in recordings]))
    rng = np.random.default_rng(0)
    pieces = _embed(network, [_random_piece(rng, b, length) for b in background for _ in range(_PIECES)])
    words = _embed(network, [(r.samples, r.word) for r in recordings])
    words = (words - pieces.mean(0)) / (pieces.std(0) + 1e-3)
    words /= np.linalg.norm(words, axis=1, keepdims=True)
    similarity: NDArray[np.float64] = words @ words.T
    return similarity


def typical_similarity(similarity: NDArray[np.float64]) -> float:
    """Return the median over the recordings of their mean similarity to the others."""
    return float(np.median(_similarity_to_others(similarity)))


def find_outliers(similarity: NDArray[np.float64]) -> list[int]:
    """Return the indices of recordings that are much less similar to the others than is typical.

    Measured on `computer` and `jarvis` with 12, 30 and 100 recordings, sixteen draws each: 0% to 0.5% of the
    recordings of the keyword are outliers; if one recording in ten is of another word, 56% to 88% of those
    are. False outliers are worse than missed ones, since they are the recordings that are hard to detect.
    """
    to_others = _similarity_to_others(similarity)
    return np.flatnonzero(to_others < _OUTLIER_FRACTION * np.median(to_others)).tolist()


def find_suspects(similarity: NDArray[np.float64]) -> list[int]:
    """Return the indices of recordings that a person should check: they may be of another word.

    They include the outliers and others that are less similar than is typical: 0% to 3% of the recordings of
    the keyword, 86% to 100% of those of another word if these are one in ten. If the recordings form two
    groups that are similar within but not between each other, they include the smaller group. If a third is
    of another word, more than a fifth of all recordings are suspects in 75 to 100 of a hundred folders, but
    in none of 96 folders of one word.
    """
    to_others = _similarity_to_others(similarity)
    suspects = set(np.flatnonzero(to_others < _SUSPECT_FRACTION * np.median(to_others)).tolist())
    return sorted(suspects | set(np.flatnonzero(_smaller_group(similarity)).tolist()))


def _similarity_to_others(similarity: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return each recording's mean similarity to all others, [n]."""
    mean: NDArray[np.float64] = (similarity.sum(1) - similarity.diagonal()) / max(1, len(similarity) - 1)
    return mean


def _smaller_group(similarity: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which recordings are in the smaller one of two groups, [n]; none if there is only one group.

    The groups start as the two sides of the first principal component. Then each recording joins the group
    that it is more similar to, until none moves.
    """
    count = len(similarity)
    no_group = np.zeros(count, bool)
    if count < 2 * _MIN_GROUP:
        return no_group
    other = similarity * ~np.eye(count, dtype=bool)
    centred = other - other.mean(0) - other.mean(1)[:, None] + other.mean()
    group = np.linalg.eigh(centred)[1][:, -1] > 0
    for _ in range(count):
        sizes = np.stack(((group.sum() - group), (~group).sum() - ~group))
        if sizes.max(1).min() < _MIN_GROUP:
            return no_group
        first, second = other @ group / np.maximum(1, sizes[0]), other @ ~group / np.maximum(1, sizes[1])
        if ((first > second) == group).all():
            break
        group = first > second
    size = int(group.sum())
    if not _MIN_GROUP <= size <= count - _MIN_GROUP:
        return no_group
    inside = np.equal.outer(group, group)
    pairs = size * (size - 1) + (count - size) * (count - size - 1)
    within, between = (other * inside).sum() / pairs, other[~inside].mean()
    if between > _TWO_WORDS * within:
        return no_group
    return group if size <= count / 2 else ~group


def _random_piece(rng: np.random.Generator, speech: NDArray[np.float32], length: int) -> _Word:
    """Return a random piece of speech between two silences of half a second, and its place."""
    start = int(rng.integers(max(1, len(speech) - length)))
    piece = speech[start : start + length]
    silence = SAMPLE_RATE_HZ // 2
    return np.pad(piece, silence), (silence, silence + len(piece))


def _embed(network: Network, words: Sequence[_Word]) -> NDArray[np.float64]:
    """Return the output of the body for each word at `_POINTS` times, [n, _POINTS * channels]."""
    embeddings = []
    for first in range(0, len(words), _BATCH):
        batch = words[first : first + _BATCH]
        frames = _body_frames(network, [np.pad(samples, (0, SAMPLE_RATE_HZ // 2)) for samples, _ in batch])
        for word_frames, (_, (start, end)) in zip(frames, batch, strict=True):
            times = np.linspace(start + (end - start) / 4, end + _LAG_S * SAMPLE_RATE_HZ, _POINTS)
            indices = np.rint(times / network.shape.frame_samples).astype(int)
            embeddings.append(word_frames[indices].ravel())
    return np.stack(embeddings).astype(np.float64)


@torch.no_grad()
def _body_frames(network: Network, sounds: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return the output of the body for sounds, [n, frames, channels], padded with silence to equal length.

    The last block is left out, since it is specialised in the network's own words: with it, 4 of 96 folders
    of one word would be rejected, without it none, and more recordings of other words are found.
    """
    shape = network.shape
    before = shape.unsmoothed_receptive_field_samples - shape.frame_samples
    frames = math.ceil(max(len(samples) for samples in sounds) / shape.frame_samples)
    after = frames * shape.frame_samples
    padded = np.stack([np.pad(samples, (before, after - len(samples))) for samples in sounds])
    mel = network.normalize(network.log_mel(torch.from_numpy(padded)))
    return cast("NDArray[np.float32]", network.body(mel, without_last=1)[-frames:].transpose(0, 1).numpy())
