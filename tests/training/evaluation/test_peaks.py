from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from earmark_training.data.transcripts import PlacedWord
from earmark_training.evaluation.detections import detect
from earmark_training.evaluation.peaks import ScoredUtterance, collect_peaks, find_peaks
from earmark_training.evaluation.streams import SpokenWord
from support.tiny_scores import FRAME_SAMPLES, scores_with_peaks

if TYPE_CHECKING:
    from earmark_spotter import SpotterModel


def test_a_peak_is_where_the_detector_has_a_detection(tone_model: SpotterModel):
    metadata = tone_model.metadata
    scores = scores_with_peaks(300, low=[(50, 0.9), (60, 0.7), (120, 0.4), (200, 0.8)])
    middles, heights = find_peaks(metadata, scores, "low")
    np.testing.assert_allclose(heights, [0.9, 0.4, 0.8], atol=1e-6)  # 60 is in the refractory period of 50
    detections = detect(metadata, scores, {"low": 0.3})
    assert [(d.start_sample + d.end_sample) / 2 for d in detections] == middles.tolist()
    assert find_peaks(metadata, scores, "mid")[0].size == 0


def test_peaks_are_those_of_words_wrong_ones_and_false_alarms(tone_model: SpotterModel):
    words = (
        SpokenWord("low", 48 * FRAME_SAMPLES, 51 * FRAME_SAMPLES),
        SpokenWord("cat", 100 * FRAME_SAMPLES, 110 * FRAME_SAMPLES),
        SpokenWord("low", 150 * FRAME_SAMPLES, 153 * FRAME_SAMPLES),
    )
    stream = scores_with_peaks(300, low=[(51, 0.9), (104, 0.6)], mid=[(105, 0.5)])
    placed = (
        PlacedWord("low", 20 * FRAME_SAMPLES, 40 * FRAME_SAMPLES),
        PlacedWord("sun", 300 * FRAME_SAMPLES, 340 * FRAME_SAMPLES),
    )
    speech = scores_with_peaks(400, low=[(35, 0.9), (320, 0.7)], high=[(35, 0.8)])
    utterance = ScoredUtterance("low sun", placed, 400 * FRAME_SAMPLES, speech)
    peaks = collect_peaks(tone_model.metadata, [(words, stream)], [utterance])
    assert peaks.words["low"].tolist() == pytest.approx([0.9, 0.0])
    assert peaks.wrong["low"].tolist() == pytest.approx([0.6])
    assert peaks.wrong["mid"].tolist() == pytest.approx([0.5])
    assert peaks.alarms["low"].tolist() == pytest.approx([0.7])  # the word is spoken, but elsewhere
    assert peaks.alarms["high"].tolist() == pytest.approx([0.8])
    assert peaks.hours == pytest.approx(400 * FRAME_SAMPLES / 16_000 / 3600)
