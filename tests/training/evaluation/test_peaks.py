"""Peaks, thresholds and curves, on scores made by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from earmark_spotter import SpotterModel
from earmark_training.data.transcripts import Placed
from earmark_training.evaluation.det_curve import curve
from earmark_training.evaluation.operating_point import best_thresholds, detect, logit, with_thresholds
from earmark_training.evaluation.peaks import Peaks, Utterance, collect_peaks, find_peaks
from earmark_training.evaluation.streams import Spoken

if TYPE_CHECKING:
    from pathlib import Path

    from earmark_spotter.metadata import ModelMetadata

FRAME = 320


@pytest.fixture(scope="module")
def metadata(tiny_model_path: Path) -> ModelMetadata:
    return SpotterModel.load(tiny_model_path).metadata


def scores(length: int, **peaks: list[tuple[int, float]]) -> np.ndarray:
    """Scores [length, classes] that are 0 but for triangles with the given peaks (frame, height)."""
    labels = ("_silence_", "_unknown_", "low", "mid", "high")
    out = np.zeros((length, len(labels)), np.float32)
    for keyword, found in peaks.items():
        for frame, height in found:
            for offset, share in ((-1, 0.8), (0, 1.0), (1, 0.8)):
                out[frame + offset, labels.index(keyword)] = height * share
    return out


def test_a_peak_is_where_a_detector_hears(metadata: ModelMetadata):
    given = scores(300, low=[(50, 0.9), (60, 0.7), (120, 0.4), (200, 0.8)])
    middles, heights = find_peaks(metadata, given, "low")
    np.testing.assert_allclose(heights, [0.9, 0.4, 0.8], atol=1e-6)  # 60 lies in the refractory time of 50
    heard = detect(metadata, given, {"low": 0.3})
    assert [(d.start_sample + d.end_sample) / 2 for d in heard] == middles.tolist()
    assert find_peaks(metadata, given, "mid")[0].size == 0


def test_peaks_are_words_wrong_or_alarms(metadata: ModelMetadata):
    words = (Spoken("low", 48 * FRAME, 51 * FRAME), Spoken("cat", 100 * FRAME, 110 * FRAME),
             Spoken("low", 150 * FRAME, 153 * FRAME))  # fmt: skip
    stream = scores(300, low=[(51, 0.9), (104, 0.6)], mid=[(105, 0.5)])
    placed = (Placed("low", 20 * FRAME, 40 * FRAME), Placed("sun", 300 * FRAME, 340 * FRAME))
    speech = scores(400, low=[(35, 0.9), (320, 0.7)], high=[(35, 0.8)])
    peaks = collect_peaks(metadata, [(words, stream)], [Utterance("low sun", placed, 400 * FRAME, speech)])
    assert peaks.words["low"].tolist() == pytest.approx([0.9, 0.0])
    assert peaks.wrong["low"].tolist() == pytest.approx([0.6])
    assert peaks.wrong["mid"].tolist() == pytest.approx([0.5])
    assert peaks.alarms["low"].tolist() == pytest.approx([0.7])  # said there, but not here
    assert peaks.alarms["high"].tolist() == pytest.approx([0.8])
    assert peaks.hours == pytest.approx(400 * FRAME / 16_000 / 3600)


def by_keyword(low: list[float], mid: list[float], high: list[float]) -> dict[str, np.ndarray]:
    return {k: np.array(v, np.float32) for k, v in {"low": low, "mid": mid, "high": high}.items()}


def test_the_curve_trades_misses_for_alarms(metadata: ModelMetadata):
    peaks = Peaks(
        words=by_keyword([0.9, 0.8, 0.55, 0.3], [], []),
        wrong=by_keyword([], [], []),
        alarms=by_keyword([0.85, 0.5], [], []),
        hours=2.0,
    )
    found = curve(metadata, peaks, peaks, ["low"])
    assert found.alarms_per_hour.tolist() == [0.0, 0.5, 1.0]
    assert found.missed.tolist() == [0.75, 0.25, 0.0]
    assert found.missed_at(0.4) == 0.75
    assert found.missed_at(0.5) == 0.25
    assert found.missed_at(9) == 0.0
    # The lowest step lies at the first alarm's distance from the model's own threshold.
    own = metadata.keywords["low"].threshold
    assert found.margins[0] == pytest.approx(logit(0.85) - logit(own), abs=1e-5)
    assert found.points()[0] == [0.0, 0.75]


def test_together_keywords_count_from_their_own_thresholds(metadata: ModelMetadata):
    tuned = with_thresholds(metadata, {"low": 0.5, "mid": 0.9, "high": 0.5})
    peaks = Peaks(
        words=by_keyword([0.6], [0.95], []),
        wrong=by_keyword([], [], []),
        alarms=by_keyword([], [0.85], [0.52]),
        hours=1.0,
    )
    # Mid's alarm lies below its own threshold and so comes after high's, though its score is higher.
    found = curve(tuned, peaks, peaks, tuned.keyword_names)
    assert found.margins[:2].tolist() == pytest.approx([logit(0.52), logit(0.85) - logit(0.9)], abs=1e-4)
    assert found.missed_at(0) == 0.0


def test_thresholds_lie_between_the_alarms_and_the_words(metadata: ModelMetadata):
    rng = np.random.default_rng(0)
    near = {k: rng.uniform(low, high, 200).tolist() for k, low, high in (("a", 0.9, 0.99), ("b", 0.3, 0.6))}
    peaks = Peaks(
        words=by_keyword(near["a"], near["a"], near["a"]),
        wrong=by_keyword([], [], []),
        alarms=by_keyword(near["b"], near["b"], near["b"]),
        hours=10.0,
    )
    chosen = best_thresholds(metadata, peaks, [], fa_per_hour=0.5)
    assert all(0.58 <= t <= 0.92 for t in chosen.values()), chosen


def test_fewer_alarms_cost_words(metadata: ModelMetadata):
    rng = np.random.default_rng(0)

    def some(mean: float, count: int) -> list[float]:
        return (1 / (1 + np.exp(-rng.normal(mean, 1.5, count)))).tolist()

    words, alarms = by_keyword(*(some(3, 300) for _ in "abc")), by_keyword(*(some(-1, 300) for _ in "abc"))
    peaks = Peaks(words, by_keyword([], [], []), alarms, hours=3.0)
    found = []
    for limit in (30, 10, 3):
        chosen = best_thresholds(metadata, peaks, [], fa_per_hour=limit)
        assert sum((alarms[k] >= t).sum() for k, t in chosen.items()) <= 1.3 * limit * 3
        found.append(sum((words[k] >= t).sum() for k, t in chosen.items()))
    assert found[0] > found[1] > found[2] > 300


def test_no_thresholds_that_keep_to_the_limit_are_said(
    metadata: ModelMetadata, caplog: pytest.LogCaptureFixture
):
    saturated = Utterance("", (), 4000 * FRAME, scores(4000, low=[(100 * i, 1.0) for i in range(1, 39)]))
    peaks = collect_peaks(metadata, [((Spoken("low", 0, 100),), scores(10))], [saturated])
    best_thresholds(metadata, replace(peaks, hours=1.0), [saturated], 2)
    assert "no thresholds keep to 2 false alarms per hour" in caplog.text
