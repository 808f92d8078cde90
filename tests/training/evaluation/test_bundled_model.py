"""Accuracy of the bundled model on speakers that it was not trained on; skipped without their clips."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
from earmark_audio.endpointing import locate_word
from earmark_spotter import Detection, Spotter, SpotterModel
from earmark_training.data.corpus import Corpus, prepare
from earmark_training.evaluation.evaluate import evaluate_clips
from earmark_training.evaluation.streams import make_streams, match_detections

if TYPE_CHECKING:
    from pathlib import Path

EVERY = 8


@pytest.fixture(scope="module")
def model() -> SpotterModel:
    return SpotterModel.load()


@pytest.fixture(scope="module")
def corpus(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Prepare every eighth clip of the validation speakers, and the noises."""
    source, folder = data_dir / "speech_commands", tmp_path_factory.mktemp("validation")
    listed = (source / "validation_list.txt").read_text().split()
    chosen = listed[::EVERY]  # the list is sorted by word, so each word keeps its share
    for name in chosen:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).symlink_to(source / name)
    shutil.copytree(source / "_background_noise_", folder / "_background_noise_")
    (folder / "validation_list.txt").write_text("\n".join(chosen))
    return prepare(folder, [], tmp_path_factory.mktemp("corpus"))


def detect(model: SpotterModel, samples: np.ndarray) -> list[Detection]:
    spotter = Spotter(model)
    return spotter.feed((samples * 32767).astype("<i2").tobytes()) + spotter.flush()


@pytest.mark.slow
def test_clips_are_classified_correctly(model: SpotterModel, corpus: Corpus):
    metrics, details, _ = evaluate_clips(model, corpus)
    assert metrics[0].value >= 0.93, details["own"]["accuracy_by_class"]


@pytest.mark.slow
def test_keywords_are_detected_at_20_db_snr(model: SpotterModel, corpus: Corpus):
    streams = make_streams(corpus, corpus.select("clip", "validation"), snr_db=20, seed=11)
    detections = [detect(model, s.samples) for s in streams]
    matched = match_detections(streams, detections, model.metadata.keyword_names)
    assert matched.recall >= 0.85, matched
    assert matched.repeated.total() <= 0.02 * matched.spoken.total()


@pytest.mark.slow
def test_a_detection_lies_at_its_word(model: SpotterModel, corpus: Corpus):
    errors_ms = []
    for clip in corpus.select("clip", "validation"):
        samples = corpus.samples(clip)
        word = locate_word(samples, 16_000)
        detections = [d for d in detect(model, samples) if d.keyword == clip.text]
        if word and detections:
            first = detections[0]
            errors_ms.append(abs(sum(word) - first.start_sample - first.end_sample) / 2 / 16)
    assert len(errors_ms) > 200
    assert np.median(errors_ms) <= 150
