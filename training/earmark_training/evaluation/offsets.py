"""Where a detection's word starts and ends, relative to the peak of its score."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from earmark_spotter import score_recording

from earmark_training.evaluation.detections import detect

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from earmark_spotter import SpotterModel
    from earmark_spotter.metadata import ModelMetadata

    from earmark_training.data.corpus import Corpus, Recording

_THRESHOLD = 0.3
_MOST_CLIPS = 300
_SEED = 20


def measure_offsets(
    model: SpotterModel, corpus: Corpus, clips: Iterable[Recording] | None = None
) -> ModelMetadata:
    """Return the model's metadata with each keyword's lag and duration, measured on training clips.

    The lag is the median time from the end of the word to the peak of its score; the duration is the word's
    median length. Only clips whose word was located are used, followed by silence, at a low threshold.
    `clips` are those to use, by default the training clips of the corpus.
    """
    meta = model.metadata
    clips = corpus.select("clip", "training") if clips is None else list(clips)
    per_ms = meta.sample_rate_hz / 1000
    thresholds = dict.fromkeys(meta.keyword_names, _THRESHOLD)
    infos = {}
    for keyword, info in meta.keywords.items():
        lags, lengths = [], []
        for clip in _located_clips(clips, keyword)[:_MOST_CLIPS]:
            assert clip.word is not None
            samples = np.pad(corpus.samples(clip), (0, meta.sample_rate_hz // 2))
            scores = score_recording(model, samples)
            detections = [d for d in detect(meta, scores, thresholds) if d.keyword == keyword]
            if detections:
                best = max(detections, key=lambda d: d.confidence)
                peak_end = best.end_sample + meta.samples_from_ms(info.end_lag_ms)
                lags.append((peak_end - clip.word[1]) / per_ms)
                lengths.append((clip.word[1] - clip.word[0]) / per_ms)
        infos[keyword] = info
        if lags:
            lag_ms, length_ms = max(0.0, round(float(np.median(lags)))), round(float(np.median(lengths)))
            infos[keyword] = replace(info, end_lag_ms=lag_ms, duration_ms=length_ms)
    return replace(meta, keywords=infos)


def _located_clips(clips: Sequence[Recording], keyword: str) -> list[Recording]:
    """Return the clips of a keyword whose word was located, in random order."""
    clips = [c for c in clips if c.text == keyword and c.word is not None]
    return [clips[i] for i in np.random.default_rng(_SEED).permutation(len(clips))]
