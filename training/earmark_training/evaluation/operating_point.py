"""The operating point: which thresholds keep to a given number of false alarms per hour.

`choose_thresholds` is for a model of several keywords, whose recall is known at every threshold: it trades
the recall of all keywords for their false alarms together. `threshold_for` is for a single keyword of which
only the peaks in other speech are known: it extrapolates their distribution.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from earmark_spotter import final_scores

from earmark_training.data.corpus import hours
from earmark_training.evaluation.conditions import (
    CALIBRATED,
    CALIBRATED_RECALL,
    Scene,
    changed_streams,
    changed_utterances,
    conditions_for,
)
from earmark_training.evaluation.detections import false_alarms
from earmark_training.evaluation.log_odds import log_odds, probability
from earmark_training.evaluation.peaks import Peaks, ScoredUtterance, collect_peaks

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from earmark_spotter import SpotterModel
    from earmark_spotter.metadata import ModelMetadata
    from earmark_spotter.model import Float32Array
    from numpy.typing import NDArray

    from earmark_training.data.corpus import Corpus, Recording
    from earmark_training.evaluation.streams import SpokenWord

log = logging.getLogger(__name__)

_SEED = 20

_GRID = np.linspace(log_odds(0.2), log_odds(0.9999), 160)
"""The thresholds that `best_thresholds` chooses from, in log-odds."""
_NOISE_GAINS_DB = (-4.0, -20.0)
"""The levels of noise without speech: others than those of the evaluation."""

_WRONG_WEIGHT = 0.2  # a wrong detection in a stream of words costs this share of what a correct one is worth
# The width of the blur of each peak, in log-odds, and the weight of the prior. Thresholds for 4 false alarms
# per hour, chosen on half of the speakers, had 5 on the other half with these values, 10 with an eighth of
# this prior, and 14 when the false alarms were only counted (means of 20 random halves).
_BLUR = 0.08
_PRIOR_ALARMS = 4.0

LOWEST_THRESHOLD, HIGHEST_THRESHOLD = 0.3, 0.995
"""The range of `threshold_for`."""
_TAIL_PEAKS = 30
"""The number of peaks that the tail is fitted to: few enough to be the tail, enough to average over chance.

Thresholds for 0.5 false alarms per hour, chosen on speech of half of 15 speakers (1.2 h), had on the other
half 0.6 to 0.8 with 20 peaks, 0.3 to 0.7 with 40, and 1.2 to 1.5 with 8 (two words, 200 random halves each).
"""


def choose_thresholds(model: SpotterModel, corpus: Corpus, *, fa_per_hour: float) -> ModelMetadata:
    """Return the model's metadata with thresholds that keep to `fa_per_hour`, all keywords together.

    The recall on the validation speakers is weighed against the false alarms in read speech, whose rate is
    the mean over the conditions `CALIBRATED`, against those in noise without speech, and against wrong
    detections. A warning is logged if no thresholds keep to the limit.
    """
    clips, speech = corpus.select("clip", "validation"), corpus.select("speech", "validation")
    peaks, utterances = collect_validation_peaks(model, corpus, clips, speech)
    noises = score_noises(model, corpus)
    chosen = best_thresholds(model.metadata, peaks, utterances, fa_per_hour, noises)
    return with_thresholds(model.metadata, chosen)


def with_thresholds(metadata: ModelMetadata, thresholds: dict[str, float]) -> ModelMetadata:
    """Return the metadata with other thresholds."""
    infos = {k: replace(info, threshold=thresholds[k]) for k, info in metadata.keywords.items()}
    return replace(metadata, keywords=infos)


def collect_validation_peaks(
    model: SpotterModel, corpus: Corpus, clips: Sequence[Recording], speech: Sequence[Recording]
) -> tuple[Peaks, list[ScoredUtterance]]:
    """Return the peaks in streams of the clips and in the speech, and the scored speech.

    All of it is in several conditions. The speech is there once per condition, so a rate over all of it is
    the mean over the conditions.
    """
    scene = Scene(corpus)
    conditions = conditions_for(corpus)

    def streams() -> Iterator[tuple[tuple[SpokenWord, ...], Float32Array]]:
        for condition in (c for c in conditions if c.name in CALIBRATED_RECALL):
            for stream in changed_streams(scene, clips, condition, _SEED):
                yield stream.words, final_scores(model, stream.samples)

    utterances = [
        utterance
        for condition in conditions
        if condition.name in CALIBRATED
        for utterance in changed_utterances(model, scene, speech, condition, _SEED)
    ]
    return collect_peaks(model.metadata, streams(), utterances), utterances


def score_noises(model: SpotterModel, corpus: Corpus) -> list[ScoredUtterance]:
    """Return the validation noises, each at two levels, as utterances without words."""
    scene = Scene(corpus)
    return [
        ScoredUtterance("", (), noise.length, final_scores(model, scene.samples(noise) * gain))
        for noise in scene.noises
        for gain in (np.float32(10 ** (db / 20)) for db in _NOISE_GAINS_DB)
    ]


def best_thresholds(
    metadata: ModelMetadata,
    peaks: Peaks,
    utterances: Sequence[ScoredUtterance],
    fa_per_hour: float,
    noises: Sequence[ScoredUtterance] = (),
) -> dict[str, float]:
    """Return the thresholds with the highest recall at no more than `fa_per_hour`, by keyword.

    For a given cost of one false alarm, each keyword has its own best threshold. The lowest cost is chosen at
    which both the expected false alarms (`_expected_alarms`) and those that the detector has in the
    utterances keep to the limit, and those expected in the noises, too. All noises together weigh as much as
    the speech in one condition.
    """
    value = {k: _value(peaks.words[k], peaks.wrong[k]) for k in metadata.keyword_names}
    alarms = _expected_alarms({k: peaks.alarms[k] for k in metadata.keyword_names})
    in_noise = _expected_alarms(dict(collect_peaks(metadata, (), noises).alarms))
    limit, noise_limit = fa_per_hour * peaks.hours, fa_per_hour * hours(noises)
    weight = peaks.hours / len(CALIBRATED) / hours(noises) if noises else 0.0
    total = {k: alarms[k] + weight * in_noise[k] for k in metadata.keyword_names}
    chosen: dict[str, float] = {}
    for cost in np.geomspace(1e-5, 10, 120):
        best = {k: int((value[k] - cost * total[k]).argmax()) for k in metadata.keyword_names}
        chosen = {k: round(probability(_GRID[i]), 4) for k, i in best.items()}
        if sum(alarms[k][i] for k, i in best.items()) > limit:
            continue
        if noises and sum(in_noise[k][i] for k, i in best.items()) > noise_limit:
            continue
        if false_alarms(metadata, utterances, chosen).total() <= limit:
            return chosen
    log.warning(
        "no thresholds keep to %g false alarms per hour: the highest ones are used. See the measured rate, "
        "or train a better model",
        fa_per_hour,
    )
    return chosen


def _count_at_least(peaks: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the number of peaks that reach each threshold of the grid, with each peak blurred, [grid].

    The blur prevents a threshold just above a peak that is there by chance.
    """
    distance = (_GRID[:, None] - log_odds(peaks)[None, :]) / _BLUR
    counts: NDArray[np.float64] = (0.5 - 0.5 * np.tanh(distance / 2)).sum(axis=1)
    return counts


def _value(words: NDArray[np.float32], wrong: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return a keyword's recall at each threshold, less the cost of its wrong detections, [grid]."""
    return (_count_at_least(words) - _WRONG_WEIGHT * _count_at_least(wrong)) / max(1, len(words))


def _expected_alarms(peaks: dict[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float64]]:
    """Return the expected number of false alarms of each keyword at each threshold, [grid].

    A few hours of speech contain few false alarms of one keyword at realistic thresholds. So its own count is
    weighed against the count it would have if its false alarms decreased with the score as those of all
    keywords together do: the mean of a gamma posterior whose prior is worth `_PRIOR_ALARMS` false alarms.
    """
    own = {k: _count_at_least(p) for k, p in peaks.items()}
    together = np.sum(list(own.values()), axis=0)
    tail = together / max(1e-9, together[0])
    expected = {}
    for keyword, counts in own.items():
        typical = (counts[0] + 0.5) * tail
        expected[keyword] = typical * (counts + _PRIOR_ALARMS) / (typical + _PRIOR_ALARMS)
    return expected


def threshold_for(peaks: NDArray[np.float64], hours: float, *, fa_per_hour: float) -> float:
    """Return the threshold that `fa_per_hour` peaks per hour are expected to exceed.

    `peaks` [n] are the scores of the keyword's peaks in `hours` of speech without it. A few hours contain too
    few false alarms to count: at 0.5 per hour, the threshold would be the second highest peak, which is
    chance. So the highest peaks are treated as a sample of an exponential tail in log-odds (peaks over
    threshold; Davison and Smith 1990), and the threshold is where the tail has fallen to the rate.
    """
    allowed = max(1e-9, fa_per_hour * hours)
    odds = np.sort(log_odds(peaks))[::-1]
    tail = min(_TAIL_PEAKS, len(odds) - 1)
    if tail < 3:
        return LOWEST_THRESHOLD
    if allowed >= tail:
        threshold = float(odds[min(len(odds) - 1, int(allowed))])
    else:
        start = float(odds[tail])
        threshold = start + float((odds[:tail] - start).mean()) * np.log(tail / allowed)
    return float(np.clip(probability(threshold), LOWEST_THRESHOLD, HIGHEST_THRESHOLD))


def fa_per_hour_at(threshold: float, peaks: NDArray[np.float64], hours: float) -> float:
    """Return the number of peaks per hour that reach a threshold."""
    return float((peaks >= threshold).sum() / hours)
