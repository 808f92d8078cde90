from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from earmark_spotter import Spotter, SpotterModel, score_recording
from earmark_training.data.transcripts import PlacedWord
from earmark_training.evaluation.detections import detect, detect_in_steps, false_alarms
from earmark_training.evaluation.peaks import ScoredUtterance
from support import tiny_model

if TYPE_CHECKING:
    from earmark_spotter.metadata import ModelMetadata


def test_a_detection_is_decided_in_the_step_in_which_a_stream_sends_it(tone_model: SpotterModel):
    samples = tiny_model.recording([(0.5, "low"), (1.5, "high"), (2.6, "mid")], 4.0)
    scores = score_recording(tone_model, samples)
    step = tone_model.metadata.step_samples
    spotter, expected = Spotter(tone_model), []
    for start in range(0, len(samples), step):
        # Scores alone do not have the level of a word.
        expected += [
            (replace(d, level_dbfs=None, snr_db=None), start + step)
            for d in spotter.feed(samples[start : start + step])
        ]
    assert len(expected) == 3
    assert list(detect_in_steps(tone_model.metadata, scores)) == expected


def test_a_detection_is_decided_after_the_peak_hold(tone_model: SpotterModel):
    """The peak hold of 100 ms is 5 frames."""
    scores = np.zeros((100, 5), np.float32)
    scores[40, 2] = 0.9
    ((detection, decided),) = detect_in_steps(tone_model.metadata, scores)
    assert detection.keyword == "low"
    assert decided == (40 + 5 + 1) * tone_model.metadata.frame_samples


def test_a_detection_at_the_end_is_decided_at_the_end(tone_model: SpotterModel):
    scores = np.zeros((42, 5), np.float32)
    scores[40, 2] = 0.9
    decisions = [sample for _, sample in detect_in_steps(tone_model.metadata, scores)]
    assert decisions == [42 * tone_model.metadata.frame_samples]


@pytest.fixture
def metadata(tone_model: SpotterModel) -> ModelMetadata:
    """Return metadata with keywords that have homophones."""
    meta = tone_model.metadata
    keywords = {name: replace(meta.keywords["low"], duration_ms=400) for name in ("yes", "no")}
    return replace(meta, labels=("_silence_", "_unknown_", "yes", "no"), keywords=keywords)


def test_a_detection_that_the_transcript_explains_is_no_false_alarm(metadata: ModelMetadata):
    second = 16_000 // metadata.frame_samples
    scores = np.zeros((4 * second, 4), np.float32)
    scores[second : second + 3, 2] = scores[3 * second : 3 * second + 3, 3] = 0.999  # yes, then no
    assert [d.keyword for d in detect(metadata, scores)] == ["yes", "no"]

    def alarms(text: str, *places: tuple[float, float], anywhere: bool = False) -> dict[str, int]:
        words = tuple(
            PlacedWord(w, int(a * 16_000), int(b * 16_000))
            for w, (a, b) in zip(text.split(), places, strict=True)
        )
        utterance = ScoredUtterance(text, words, 64_000, scores)
        return dict(false_alarms(metadata, [utterance], anywhere=anywhere))

    assert alarms("oh yes", (0.1, 0.4), (0.6, 1.0)) == {"no": 1}
    assert alarms("yes i know", (0.5, 1.0), (1.0, 2.5), (2.6, 3.0)) == {}
    # Both are spoken, but elsewhere.
    assert alarms("know yes", (0.5, 1.0), (2.6, 3.0)) == {"yes": 1, "no": 1}
    assert alarms("know yes", (0.5, 1.0), (2.6, 3.0), anywhere=True) == {}
