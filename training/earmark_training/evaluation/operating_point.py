"""Calibration: thresholds from the trade between misses and false alarms, offsets from located words."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from earmark_spotter import Detector, KeywordSetting, resolve_settings, score_recording

from earmark_training.data.transcripts import is_spoken_at
from earmark_training.data.vocabulary import keywords_in
from earmark_training.evaluation.peaks import Peaks, Utterance, collect_peaks, hear_utterances
from earmark_training.evaluation.streams import make_streams

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from earmark_spotter import Detection, SpotterModel
    from earmark_spotter.metadata import ModelMetadata
    from earmark_spotter.model import Float32Array
    from numpy.typing import NDArray

    from earmark_training.data.corpus import Corpus, Recording
    from earmark_training.evaluation.streams import Spoken

log = logging.getLogger(__name__)

_LOWEST_THRESHOLD, _HIGHEST_THRESHOLD = 0.2, 0.9999
_CALIBRATION_SNRS_DB = (None, 20.0, 10.0)
_SEED = 20
_WRONG_WEIGHT = 0.2  # a wrong word in a stream of nothing but words is worth less than a found one
_OFFSETS_THRESHOLD = 0.3
# How much a peak is blurred, and what the prior is worth. Thresholds for 4 alarms an hour, chosen on half of
# the speakers, gave 5 on the other half so; with an eighth of this prior 10, and 14 where only the alarms
# that were there were counted (means of 20 random halves).
_KERNEL_LOGITS = 0.08
_PRIOR_ALARMS = 4.0


def logit(score: NDArray[np.floating] | float) -> NDArray[np.float64]:
    """Return the log-odds of scores: even steps in it are even steps in what a threshold costs."""
    p = np.clip(np.asarray(score, np.float64), 1e-6, 1 - 1e-6)
    odds: NDArray[np.float64] = np.log(p / (1 - p))
    return odds


_GRID = np.linspace(logit(_LOWEST_THRESHOLD), logit(_HIGHEST_THRESHOLD), 160)


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
    utterances: Sequence[Utterance],
    thresholds: dict[str, float] | None = None,
    *,
    anywhere: bool = False,
) -> Counter[str]:
    """Count detections of keywords that the transcript does not have there, nor what is heard as them.

    `anywhere`: let those pass whose keyword the transcript has, wherever in the utterance.
    """
    counts: Counter[str] = Counter()
    for utterance in utterances:
        spoken = keywords_in(utterance.text, metadata.keyword_names)
        for d in detect(metadata, utterance.scores, thresholds):
            middle = (d.start_sample + d.end_sample) / 2
            if d.keyword not in spoken or not (
                anywhere or is_spoken_at(utterance.words, d.keyword, middle, utterance.length)
            ):
                counts[d.keyword] += 1
    return counts


def choose_thresholds(model: SpotterModel, corpus: Corpus, *, fa_per_hour: float) -> ModelMetadata:
    """Give the model's metadata thresholds that together stay within the false alarms per hour of speech.

    Found words (validation speakers, clean and with noise at 20 and 10 dB) are weighed against false
    alarms (read speech) and wrong words. Where nothing keeps to the limit, the log says so.
    """
    clips, speech = corpus.select("clip", "validation"), corpus.select("speech", "validation")
    peaks, utterances = observe(model, corpus, clips, speech)
    return with_thresholds(model.metadata, best_thresholds(model.metadata, peaks, utterances, fa_per_hour))


def with_thresholds(metadata: ModelMetadata, thresholds: dict[str, float]) -> ModelMetadata:
    """Return the metadata with these thresholds."""
    infos = {k: replace(info, threshold=thresholds[k]) for k, info in metadata.keywords.items()}
    return replace(metadata, keywords=infos)


def observe(
    model: SpotterModel, corpus: Corpus, clips: Sequence[Recording], speech: Sequence[Recording]
) -> tuple[Peaks, list[Utterance]]:
    """Hear streams of the clips at calibration's noise levels, and the speech; return what there is in it."""

    def streams() -> Iterator[tuple[tuple[Spoken, ...], Float32Array]]:
        for snr in _CALIBRATION_SNRS_DB:
            for stream in make_streams(corpus, clips, snr_db=snr, seed=_SEED):
                yield stream.words, score_recording(model, stream.samples)

    utterances = hear_utterances(model, corpus, speech)
    return collect_peaks(model.metadata, streams(), utterances), utterances


def best_thresholds(
    metadata: ModelMetadata, peaks: Peaks, utterances: Sequence[Utterance], fa_per_hour: float
) -> dict[str, float]:
    """Return the keywords' thresholds that find most at no more than that many false alarms an hour.

    At a given price of one false alarm, every keyword has its own best threshold; the lowest price is
    chosen at which both the alarms expected (`_expected_alarms`) and those that the detector gives in the
    utterances keep to the limit.
    """
    value = {k: _value(peaks.words[k], peaks.wrong[k]) for k in metadata.keyword_names}
    alarms = _expected_alarms({k: peaks.alarms[k] for k in metadata.keyword_names})
    limit = fa_per_hour * peaks.hours
    chosen: dict[str, float] = {}
    for price in np.geomspace(1e-5, 10, 120):
        best = {k: int((value[k] - price * alarms[k]).argmax()) for k in metadata.keyword_names}
        chosen = {k: round(float(1 / (1 + np.exp(-_GRID[i]))), 4) for k, i in best.items()}
        if sum(alarms[k][i] for k, i in best.items()) > limit:
            continue
        if false_alarms(metadata, utterances, chosen).total() <= limit:
            return chosen
    log.warning("no thresholds keep to %g false alarms per hour: see what these give", fa_per_hour)
    return chosen


def _at_least(peaks: NDArray[np.float32]) -> NDArray[np.float64]:
    """Count the peaks that reach each threshold of the grid, every peak blurred a little, [grid].

    The blur keeps a threshold from settling just above a peak that chance put there.
    """
    distance = (_GRID[:, None] - logit(peaks)[None, :]) / _KERNEL_LOGITS
    counts: NDArray[np.float64] = (0.5 - 0.5 * np.tanh(distance / 2)).sum(axis=1)
    return counts


def _value(words: NDArray[np.float32], wrong: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the share of a keyword's words found at each threshold, less what wrong ones cost, [grid]."""
    return (_at_least(words) - _WRONG_WEIGHT * _at_least(wrong)) / max(1, len(words))


def _expected_alarms(peaks: dict[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float64]]:
    """Return each keyword's alarms to be expected at each threshold, [grid].

    A few hours of speech give a keyword few alarms at the thresholds that matter. So its own count is
    weighed against the count that it would have if its alarms fell off towards higher scores as those of
    all keywords together do: as the mean of a gamma posterior, the prior worth `_PRIOR_ALARMS` alarms.
    """
    own = {k: _at_least(p) for k, p in peaks.items()}
    together = np.sum(list(own.values()), axis=0)
    tail = together / max(1e-9, together[0])
    expected = {}
    for keyword, counts in own.items():
        typical = (counts[0] + 0.5) * tail
        expected[keyword] = typical * (counts + _PRIOR_ALARMS) / (typical + _PRIOR_ALARMS)
    return expected


def measure_offsets(model: SpotterModel, corpus: Corpus) -> ModelMetadata:
    """Give the model's metadata the median lag from a word's end to its score's peak, and the median length.

    From training clips whose word energy can locate, padded with silence, heard at a low threshold.
    """
    meta = model.metadata
    per_ms = meta.sample_rate_hz / 1000
    lowest = dict.fromkeys(meta.keyword_names, _OFFSETS_THRESHOLD)
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
