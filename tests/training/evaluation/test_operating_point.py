from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from earmark_training.evaluation.operating_point import best_thresholds, fa_per_hour_at, threshold_for
from earmark_training.evaluation.peaks import Peaks, ScoredUtterance, collect_peaks
from earmark_training.evaluation.streams import SpokenWord
from support.tiny_scores import FRAME_SAMPLES, by_keyword, scores_with_peaks

if TYPE_CHECKING:
    from earmark_spotter import SpotterModel


def test_thresholds_are_between_the_false_alarms_and_the_words(tone_model: SpotterModel):
    rng = np.random.default_rng(0)
    words, alarms = (rng.uniform(low, high, 200).tolist() for low, high in ((0.9, 0.99), (0.3, 0.6)))
    peaks = Peaks(
        words=by_keyword(words, words, words),
        wrong=by_keyword([], [], []),
        alarms=by_keyword(alarms, alarms, alarms),
        hours=10.0,
    )
    chosen = best_thresholds(tone_model.metadata, peaks, [], fa_per_hour=0.5)
    assert all(0.58 <= t <= 0.92 for t in chosen.values()), chosen


def test_fewer_false_alarms_cost_recall(tone_model: SpotterModel):
    rng = np.random.default_rng(0)

    def draw(mean: float, count: int) -> list[float]:
        return (1 / (1 + np.exp(-rng.normal(mean, 1.5, count)))).tolist()

    words, alarms = by_keyword(*(draw(3, 300) for _ in "abc")), by_keyword(*(draw(-1, 300) for _ in "abc"))
    peaks = Peaks(words, by_keyword([], [], []), alarms, hours=3.0)
    detected = []
    for limit in (30, 10, 3):
        chosen = best_thresholds(tone_model.metadata, peaks, [], fa_per_hour=limit)
        assert sum((alarms[k] >= t).sum() for k, t in chosen.items()) <= 1.3 * limit * 3
        detected.append(sum((words[k] >= t).sum() for k, t in chosen.items()))
    assert detected[0] > detected[1] > detected[2] > 300


def test_false_alarms_in_noise_raise_the_threshold_of_their_keyword(tone_model: SpotterModel):
    rng = np.random.default_rng(0)
    words, alarms = (rng.uniform(low, high, 200).tolist() for low, high in ((0.8, 0.99), (0.3, 0.6)))
    spoken, quiet = by_keyword(words, words, words), by_keyword(alarms, alarms, alarms)
    peaks = Peaks(spoken, by_keyword([], [], []), quiet, hours=10.0)
    knocks = scores_with_peaks(4000, low=[(100 * i, 0.9) for i in range(1, 39)])
    three_hours = 3 * 3600 * 16_000
    noise = ScoredUtterance("", (), three_hours, knocks)
    plain = best_thresholds(tone_model.metadata, peaks, [], 5)
    chosen = best_thresholds(tone_model.metadata, peaks, [], 5, [noise])
    assert plain["low"] < 0.85
    assert chosen["low"] > 0.9
    assert chosen["high"] < 0.85


def test_a_warning_is_logged_if_no_thresholds_keep_to_the_limit(
    tone_model: SpotterModel, caplog: pytest.LogCaptureFixture
):
    metadata = tone_model.metadata
    scores = scores_with_peaks(4000, low=[(100 * i, 1.0) for i in range(1, 39)])
    saturated = ScoredUtterance("", (), 4000 * FRAME_SAMPLES, scores)
    words = (SpokenWord("low", 0, 100),)
    peaks = collect_peaks(metadata, [(words, scores_with_peaks(10))], [saturated])
    best_thresholds(metadata, replace(peaks, hours=1.0), [saturated], 2)
    assert "no thresholds keep to 2 false alarms per hour" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize(("rate", "hours"), [(0.5, 2.3), (0.5, 0.5), (5.0, 3.0)])
def test_an_extrapolated_threshold_keeps_to_the_rate_on_other_speech(rate: float, hours: float):
    rng = np.random.default_rng(0)

    def draw_peaks(hours: float) -> np.ndarray:
        odds = -3 + rng.exponential(0.8, rng.poisson(2000 * hours))
        return 1 / (1 + np.exp(-odds))

    rates = []
    for _ in range(60):
        other = draw_peaks(100)
        threshold = threshold_for(draw_peaks(hours), hours, fa_per_hour=rate)
        rates.append(fa_per_hour_at(threshold, other, 100))
    assert rate / 2 < np.median(rates) < 2 * rate
    assert np.percentile(rates, 90) < 6 * rate
