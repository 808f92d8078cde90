"""Calibration: thresholds from the trade between misses and false alarms, offsets from located words."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from earmark_spotter import Detector, KeywordSetting, resolve_settings
from earmark_spotter.spotter import score_recording

from earmark_training.streams import judge, make_streams
from earmark_training.vocabulary import keywords_in

if TYPE_CHECKING:
    from collections.abc import Sequence

    from earmark_spotter import Detection, SpotterModel
    from earmark_spotter.metadata import ModelMetadata
    from earmark_spotter.model import Float32Array

    from earmark_training.corpus import Corpus, Recording

log = logging.getLogger(__name__)

THRESHOLDS = tuple(np.round([*np.arange(0.30, 0.95, 0.025), 0.95, 0.965, 0.98, 0.99, 0.995], 3).tolist())
_CALIBRATION_SNRS_DB = (None, 20.0, 10.0)
_SEED = 20


def detect(
    metadata: ModelMetadata, scores: Float32Array, thresholds: dict[str, float] | None = None
) -> list[Detection]:
    """Run the detector over a recording's scores [frames, classes], at the model's thresholds or these."""
    settings = [KeywordSetting(k, t) for k, t in (thresholds or {}).items()]
    detector = Detector(metadata, resolve_settings(metadata, settings))
    # In pieces, since a piece in which nothing reaches its threshold costs next to nothing.
    pieces = (scores[i : i + 50] for i in range(0, len(scores), 50))
    return [d for piece in pieces for d in detector.push(piece)] + detector.flush()


def false_alarms(
    metadata: ModelMetadata,
    utterances: Sequence[tuple[str, Float32Array]],
    thresholds: dict[str, float] | None = None,
) -> Counter[str]:
    """Count detections in (transcript, scores) of keywords that the transcript does not have."""
    counts: Counter[str] = Counter()
    for transcript, scores in utterances:
        spoken = keywords_in(transcript, metadata.keyword_names)
        counts.update(d.keyword for d in detect(metadata, scores, thresholds) if d.keyword not in spoken)
    return counts


def score_speech(model: SpotterModel, corpus: Corpus) -> tuple[list[tuple[str, Float32Array]], float]:
    """Return the validation utterances as (transcript, scores), and their length in hours."""
    utterances = corpus.select("speech", "validation")
    scored = [(u.text, score_recording(model, corpus.samples(u))) for u in utterances]
    return scored, sum(u.length for u in utterances) / model.metadata.sample_rate_hz / 3600


def choose_thresholds(model: SpotterModel, corpus: Corpus, *, fa_per_hour: float) -> ModelMetadata:
    """Give the model's metadata thresholds that together stay within the false alarms per hour of speech.

    Found words (validation speakers, clean and with noise at 20 and 10 dB) are weighed against false
    alarms (read speech) and wrong words: at a given price of one false alarm, every keyword has its own
    best threshold; the lowest price that keeps to the limit is chosen. Where none does, the log says so.
    """
    meta, keywords = model.metadata, model.metadata.keyword_names
    speech, hours = score_speech(model, corpus)
    clips = corpus.select("clip", "validation")
    value = {k: np.zeros(len(THRESHOLDS)) for k in keywords}
    alarms = {k: np.zeros(len(THRESHOLDS)) for k in keywords}
    for snr in _CALIBRATION_SNRS_DB:
        streams = make_streams(corpus, clips, snr_db=snr, seed=_SEED)
        scores = [score_recording(model, s.samples) for s in streams]
        for i, threshold in enumerate(THRESHOLDS):
            same = dict.fromkeys(keywords, threshold)
            verdict = judge(streams, [detect(meta, s, same) for s in scores], keywords)
            for k in keywords:
                # A wrong word in a stream of nothing but words is worth less than an alarm in speech.
                errors = verdict.wrong[k] + verdict.repeated[k]
                gain = (verdict.found[k] - 0.2 * errors) / max(1, verdict.spoken[k])
                value[k][i] += gain / len(_CALIBRATION_SNRS_DB)
    for i, threshold in enumerate(THRESHOLDS):
        counts = false_alarms(meta, speech, dict.fromkeys(keywords, threshold))
        for k in keywords:
            alarms[k][i] = counts[k]
    chosen: dict[str, float] = {}
    for price in np.geomspace(1e-4, 10, 60):
        best = {k: int((value[k] - price * alarms[k]).argmax()) for k in keywords}
        chosen = {k: THRESHOLDS[i] for k, i in best.items()}
        if false_alarms(meta, speech, chosen).total() <= fa_per_hour * hours:
            break
    else:
        log.warning("no thresholds keep to %g false alarms per hour: see what these give", fa_per_hour)
    infos = {k: replace(info, threshold=chosen[k]) for k, info in meta.keywords.items()}
    return replace(meta, keywords=infos)


def measure_offsets(model: SpotterModel, corpus: Corpus) -> ModelMetadata:
    """Give the model's metadata the median lag from a word's end to its score's peak, and the median length.

    From training clips whose word energy can locate, padded with silence, heard at the lowest threshold.
    """
    meta = model.metadata
    per_ms = meta.sample_rate_hz / 1000
    lowest = dict.fromkeys(meta.keyword_names, THRESHOLDS[0])
    infos = {}
    for keyword, info in meta.keywords.items():
        lags, lengths = [], []
        for clip in _located(corpus, keyword)[:300]:
            assert clip.word is not None
            samples = np.pad(corpus.samples(clip), (0, meta.sample_rate_hz // 2))
            heard = [d for d in detect(meta, score_recording(model, samples), lowest) if d.keyword == keyword]
            if heard:
                best = max(heard, key=lambda d: d.confidence)
                peak_end = best.end_sample + meta.samples_from_ms(info.end_lag_ms)
                lags.append((peak_end - clip.word[1]) / per_ms)
                lengths.append((clip.word[1] - clip.word[0]) / per_ms)
        infos[keyword] = info
        if lags:
            lag_ms, length_ms = max(0.0, round(float(np.median(lags)))), round(float(np.median(lengths)))
            infos[keyword] = replace(info, end_lag_ms=lag_ms, duration_ms=length_ms)
    return replace(meta, keywords=infos)


def _located(corpus: Corpus, keyword: str) -> list[Recording]:
    clips = [c for c in corpus.select("clip", "training") if c.text == keyword and c.word is not None]
    return [clips[i] for i in np.random.default_rng(_SEED).permutation(len(clips))]
