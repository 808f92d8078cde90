"""Peaks of a keyword's score: misses and false alarms at every threshold, from one pass over the scores.

A detection at threshold t is, very nearly, a peak of at least t. So misses and false alarms at every
threshold follow from the peaks alone, where the detector would need one pass per threshold. The effect of
keywords on each other (one that is detected suppresses the others for a moment) is ignored; reported metrics
come from the detector itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from earmark_audio.peak_picker import pick_peaks
from earmark_spotter import final_scores

from earmark_training.data.corpus import hours
from earmark_training.data.transcripts import PlacedWord, is_spoken_at, place_words
from earmark_training.evaluation.streams import TOLERANCE_SAMPLES, add_recorded_noise

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from earmark_spotter import SpotterModel
    from earmark_spotter.metadata import ModelMetadata
    from earmark_spotter.model import Float32Array
    from numpy.typing import NDArray

    from earmark_training.data.corpus import Corpus, Recording
    from earmark_training.evaluation.streams import SpokenWord

LOWEST_PEAK = 0.05
"""The lowest score of a peak: lower than any threshold."""


@dataclass(frozen=True, slots=True)
class ScoredUtterance:
    """An utterance of read speech with the estimated places of its words and its scores [frames, classes]."""

    text: str
    words: tuple[PlacedWord, ...]
    length: int
    """In samples."""
    scores: Float32Array


def score_utterances(
    model: SpotterModel,
    corpus: Corpus,
    utterances: Iterable[Recording],
    *,
    snr_db: float | None = None,
    seed: int = 0,
) -> list[ScoredUtterance]:
    """Score utterances of a corpus, with recorded noise added at `snr_db` if it is given."""
    scored, rng = [], np.random.default_rng(seed)
    for u in utterances:
        samples = corpus.samples(u)
        words = place_words(samples, u.text)
        if snr_db is not None:
            samples = add_recorded_noise(corpus, samples, np.square(samples).mean(), snr_db, rng)
        scored.append(ScoredUtterance(u.text, words, u.length, final_scores(model, samples)))
    return scored


@dataclass(frozen=True, slots=True)
class Peaks:
    """The peaks of each keyword's score, by keyword.

    `words`: the highest score at each time the keyword was spoken, 0 if there is no peak.
    `wrong`: the other peaks in streams of words.
    `alarms`: the peaks in `hours` of read speech that the transcript does not explain.
    """

    words: Mapping[str, NDArray[np.float32]]
    wrong: Mapping[str, NDArray[np.float32]]
    alarms: Mapping[str, NDArray[np.float32]]
    hours: float


def collect_peaks(
    metadata: ModelMetadata,
    streams: Iterable[tuple[Sequence[SpokenWord], Float32Array]],
    utterances: Sequence[ScoredUtterance],
) -> Peaks:
    """Collect the peaks in streams, given as (words, scores [frames, classes]), and in read speech."""
    words: dict[str, list[float]] = {k: [] for k in metadata.keywords}
    wrong: dict[str, list[float]] = {k: [] for k in metadata.keywords}
    alarms: dict[str, list[float]] = {k: [] for k in metadata.keywords}
    for spoken, scores in streams:
        for keyword in metadata.keywords:
            middles, heights = find_peaks(metadata, scores, keyword)
            unmatched = np.ones(len(heights), bool)
            for word in spoken:
                if word.text != keyword:
                    continue
                low, high = np.searchsorted(
                    middles, (word.start - TOLERANCE_SAMPLES, word.end + TOLERANCE_SAMPLES)
                )
                candidates = low + np.flatnonzero(unmatched[low:high])
                best = candidates[heights[candidates].argmax()] if len(candidates) else None
                words[keyword].append(0.0 if best is None else float(heights[best]))
                if best is not None:
                    unmatched[best] = False
            wrong[keyword] += heights[unmatched].tolist()
    for utterance in utterances:
        for keyword in metadata.keywords:
            middles, heights = find_peaks(metadata, utterance.scores, keyword)
            alarms[keyword] += [
                float(height)
                for middle, height in zip(middles, heights, strict=True)
                if not is_spoken_at(utterance.words, keyword, middle, utterance.length)
            ]
    arrays = [{k: np.array(v, np.float32) for k, v in kind.items()} for kind in (words, wrong, alarms)]
    return Peaks(arrays[0], arrays[1], arrays[2], hours(utterances))


def find_peaks(
    metadata: ModelMetadata, scores: Float32Array, keyword: str
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Return a keyword's peaks in scores [frames, classes], in order of time.

    Each has the middle of the word in samples [n] and its score [n]. Two peaks are at least the keyword's
    refractory period apart.
    """
    info = metadata.keywords[keyword]
    score = scores[:, metadata.labels.index(keyword)]
    refractory = math.ceil(metadata.samples_from_ms(info.refractory_ms) / metadata.frame_samples)
    frames = np.sort(pick_peaks(score, lowest=LOWEST_PEAK, before=refractory - 1, after=refractory))
    lag = metadata.samples_from_ms(info.end_lag_ms) + metadata.samples_from_ms(info.duration_ms) / 2
    return np.asarray((frames + 1) * metadata.frame_samples - lag, np.float64), score[frames]
