from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from earmark_training.evaluation.det_curve import det_curve
from earmark_training.evaluation.log_odds import log_odds
from earmark_training.evaluation.operating_point import with_thresholds
from earmark_training.evaluation.peaks import Peaks
from support.tiny_scores import by_keyword

if TYPE_CHECKING:
    from earmark_spotter import SpotterModel


def test_fewer_misses_cost_more_false_alarms(tone_model: SpotterModel):
    peaks = Peaks(
        words=by_keyword([0.9, 0.8, 0.55, 0.3], [], []),
        wrong=by_keyword([], [], []),
        alarms=by_keyword([0.85, 0.5], [], []),
        hours=2.0,
    )
    curve = det_curve(tone_model.metadata, peaks, peaks, ["low"])
    assert curve.fa_per_hour.tolist() == [0.0, 0.5, 1.0]
    assert curve.miss_rate.tolist() == [0.75, 0.25, 0.0]
    assert curve.miss_rate_at(0.4) == 0.75
    assert curve.miss_rate_at(0.5) == 0.25
    assert curve.miss_rate_at(9) == 0.0
    # The first step is at the distance of the first false alarm from the model's threshold.
    threshold = tone_model.metadata.keywords["low"].threshold
    assert curve.margins[0] == pytest.approx(log_odds(0.85) - log_odds(threshold), abs=1e-5)
    assert curve.points()[0] == [0.0, 0.75]


def test_several_keywords_are_compared_by_the_margins_to_their_thresholds(tone_model: SpotterModel):
    metadata = with_thresholds(tone_model.metadata, {"low": 0.5, "mid": 0.9, "high": 0.5})
    peaks = Peaks(
        words=by_keyword([0.6], [0.95], []),
        wrong=by_keyword([], [], []),
        alarms=by_keyword([], [0.85], [0.52]),
        hours=1.0,
    )
    # The peak of mid is below its threshold, so it follows that of high, although its score is higher.
    curve = det_curve(metadata, peaks, peaks, metadata.keyword_names)
    expected = [log_odds(0.52), log_odds(0.85) - log_odds(0.9)]
    assert curve.margins[:2].tolist() == pytest.approx(expected, abs=1e-4)
    assert curve.miss_rate_at(0) == 0.0
