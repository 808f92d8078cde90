"""A keyword's peaks: what a detector could hear at any threshold, found in one pass over the scores.

A detection at threshold t is, very nearly, a peak of at least t. So misses and false alarms at every
threshold come from the peaks' scores alone, where running the detector would cost one pass for each.
What keywords do to one another (one that is heard makes the others deaf for a moment) is left out;
figures that count are the detector's own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from earmark_spotter import score_recording

from earmark_training.data.corpus import hours
from earmark_training.data.transcripts import Placed, is_spoken_at, place_words
from earmark_training.evaluation.streams import TOLERANCE_SAMPLES, under_noise

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from earmark_spotter import SpotterModel
    from earmark_spotter.metadata import ModelMetadata
    from earmark_spotter.model import Float32Array
    from numpy.typing import NDArray

    from earmark_training.data.corpus import Corpus, Recording
    from earmark_training.evaluation.streams import Spoken

LOWEST_PEAK = 0.05
"""Peaks below this are left out: no threshold is as low."""


@dataclass(frozen=True, slots=True)
class Utterance:
    """Read speech as a model hears it: its words where they are expected, the scores [frames, classes]."""

    text: str
    words: tuple[Placed, ...]
    length: int
    scores: Float32Array


def hear_utterances(
    model: SpotterModel,
    corpus: Corpus,
    utterances: Iterable[Recording],
    *,
    snr_db: float | None = None,
    seed: int = 0,
) -> list[Utterance]:
    """Score some utterances of a corpus; `snr_db`: under recorded noise that is so much weaker."""
    heard, rng = [], np.random.default_rng(seed)
    for u in utterances:
        samples = corpus.samples(u)
        words = place_words(samples, u.text)
        if snr_db is not None:
            samples = under_noise(corpus, samples, np.square(samples).mean(), snr_db, rng)
        heard.append(Utterance(u.text, words, u.length, score_recording(model, samples)))
    return heard


@dataclass(frozen=True, slots=True)
class Peaks:
    """What there is to hear, and to mishear, at which thresholds; by keyword.

    `words`: for every time that it was said the highest score there, 0 where none.
    `wrong`: the peaks among other words and beside it, in streams of nothing but words.
    `alarms`: the peaks in read speech where the transcript does not have it; `hours` of it.
    """

    words: Mapping[str, NDArray[np.float32]]
    wrong: Mapping[str, NDArray[np.float32]]
    alarms: Mapping[str, NDArray[np.float32]]
    hours: float


def collect_peaks(
    metadata: ModelMetadata,
    streams: Iterable[tuple[Sequence[Spoken], Float32Array]],
    utterances: Sequence[Utterance],
) -> Peaks:
    """Find the peaks in streams (their words and scores [frames, classes]) and in read speech."""
    words: dict[str, list[float]] = {k: [] for k in metadata.keywords}
    wrong: dict[str, list[float]] = {k: [] for k in metadata.keywords}
    alarms: dict[str, list[float]] = {k: [] for k in metadata.keywords}
    for spoken, scores in streams:
        for keyword in metadata.keywords:
            middles, heights = find_peaks(metadata, scores, keyword)
            free = np.ones(len(heights), bool)
            for word in spoken:
                if word.text != keyword:
                    continue
                low, high = np.searchsorted(
                    middles, (word.start - TOLERANCE_SAMPLES, word.end + TOLERANCE_SAMPLES)
                )
                here = low + np.flatnonzero(free[low:high])
                best = here[heights[here].argmax()] if len(here) else None
                words[keyword].append(0.0 if best is None else float(heights[best]))
                if best is not None:
                    free[best] = False
            wrong[keyword] += heights[free].tolist()
    for utterance in utterances:
        for keyword in metadata.keywords:
            middles, heights = find_peaks(metadata, utterance.scores, keyword)
            alarms[keyword] += [
                float(height)
                for middle, height in zip(middles, heights, strict=True)
                if not is_spoken_at(utterance.words, keyword, middle, utterance.length)
            ]
    found = [{k: np.array(v, np.float32) for k, v in kind.items()} for kind in (words, wrong, alarms)]
    return Peaks(found[0], found[1], found[2], hours(utterances))


def find_peaks(
    metadata: ModelMetadata, scores: Float32Array, keyword: str
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Return a keyword's peaks in scores [frames, classes]: the word's middle in samples, and the score.

    Of two peaks closer than the keyword's refractory time the higher one counts. In order of time.
    """
    info = metadata.keywords[keyword]
    score = scores[:, metadata.labels.index(keyword)]
    deaf = math.ceil(metadata.samples_from_ms(info.refractory_ms) / metadata.frame_samples)
    candidates = np.flatnonzero(score >= LOWEST_PEAK)
    free = np.ones(len(score), bool)
    frames = []
    for frame in candidates[np.argsort(-score[candidates], kind="stable")].tolist():
        if free[frame]:
            frames.append(frame)
            free[max(0, frame - deaf + 1) : frame + deaf] = False
    found = np.array(sorted(frames), int)
    back = metadata.samples_from_ms(info.end_lag_ms) + metadata.samples_from_ms(info.duration_ms) / 2
    return (found + 1) * metadata.frame_samples - back, score[found]
