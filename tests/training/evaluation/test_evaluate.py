from __future__ import annotations

import json
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from earmark_spotter import Spotter
from earmark_training.__main__ import main
from earmark_training.evaluation.evaluate import evaluate_streams
from earmark_training.evaluation.evaluation_set import from_folders
from earmark_training.evaluation.streams import make_streams
from support.tiny_model import RATE_HZ, TONES_HZ

if TYPE_CHECKING:
    from pathlib import Path

    from earmark_spotter import SpotterModel


@pytest.mark.slow
def test_the_whole_testing_split_is_evaluated(document: dict[str, Any]):
    assert "20 clips in" in document["data"]["what"]
    assert "split: testing" in document["data"]["what"]
    assert "1 utterances in" in document["data"]["what"]
    own = document["clips"]["own"]
    assert own["clips"] == 20 + 20 // 5  # and noise, in proportion
    assert all(own["accuracy_by_class"][k] == 1.0 for k in TONES_HZ)
    clean = document["streams"]["clean"]
    assert (clean["spoken"], clean["detected"], clean["repeated"]) == (15, 15, 0)
    assert list(document["streams"]) == ["clean", "20db", "10db", "5db", "0db"]


def test_noise_that_is_missing_is_synthesized_and_the_document_says_so(document: dict[str, Any]):
    assert document["data"]["noise"].startswith("synthetic (white, pink, brown)")


def test_the_delay_is_that_of_a_stream(
    document: dict[str, Any], tone_model: SpotterModel, tone_clips: Path, tmp_path: Path
):
    corpus = from_folders(tone_clips, [], "testing", tmp_path).corpus
    step, delays_ms = tone_model.metadata.step_samples, []
    for stream in make_streams(corpus, corpus.select("clip", "validation"), snr_db=None, seed=7):
        spotter = Spotter(tone_model)
        for start in range(0, len(stream.samples), step):
            for d in spotter.feed(stream.samples[start : start + step]):
                middle = (d.start_sample + d.end_sample) // 2
                words = [
                    w for w in stream.words if abs(w.end - middle) < RATE_HZ // 3 and w.text == d.keyword
                ]
                delays_ms += [(start + step - word.end) / 16 for word in words]
    delay = document["streams"]["clean"]["delay_ms"]
    assert delay["words"] == len(delays_ms) == 15
    assert delay["median"] == round(np.percentile(delays_ms, 50))
    assert delay["95th"] == round(np.percentile(delays_ms, 95))


def test_a_detection_is_a_false_alarm_unless_the_word_is_spoken_at_its_place(document: dict[str, Any]):
    speech = document["speech"]
    assert speech["hours"] == pytest.approx(30 / 3600, abs=1e-3)
    assert speech["by_keyword"] == {"low": 1}
    assert speech["alarms"] == 1
    assert speech["alarms_if_excused_anywhere"] == 0
    assert speech["per_hour"] == pytest.approx(120)


def test_thresholds_that_were_chosen_elsewhere_are_not_cross_validated(document: dict[str, Any]):
    assert "cross_validation" not in document


def test_the_miss_rate_falls_to_zero_along_the_curve(document: dict[str, Any]):
    overall = document["det_curve"]["overall"]["clean"]
    assert overall[-1][1] == 0.0  # the tiny model detects every tone
    assert all(a[1] >= b[1] and a[0] < b[0] for a, b in pairwise(overall))
    assert document["det_curve"]["recall_at"] == {}  # half a minute of speech is too short for hourly rates


def test_the_same_seed_measures_the_same(tone_model: SpotterModel, tone_clips: Path, tmp_path: Path):
    corpus = from_folders(tone_clips, [], "validation", tmp_path).corpus
    clips = corpus.select("clip", "validation")
    assert len(clips) == 8
    first, again, other = (make_streams(corpus, clips, snr_db=10, seed=s)[0] for s in (7, 7, 8))
    np.testing.assert_array_equal(first.samples, again.samples)
    assert first.words != other.words
    metrics = [evaluate_streams(tone_model, corpus, clips, 7)[0] for _ in range(2)]
    assert metrics[0] == metrics[1]


@pytest.mark.slow
def test_the_command_evaluates_folders(
    tiny_model_path: Path,
    tone_clips: Path,
    tone_speech: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    arguments = ["evaluate", str(tiny_model_path), "--clips", str(tone_clips), "--speech", str(tone_speech)]
    assert main([*arguments, "--split", "testing", "--seed", "3", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "split: testing" in printed
    document = json.loads((tmp_path / "metrics.json").read_text())
    assert document["data"]["seed"] == 3
    for name in ("report.html", "model_card.md"):
        assert document["sha256"] in (tmp_path / name).read_text()
