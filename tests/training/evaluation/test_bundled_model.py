"""How well the bundled model hears speakers that it was not trained on; skipped where their clips are not."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
from earmark_spotter import Detection, Spotter, SpotterModel
from earmark_training.data.corpus import Corpus, prepare
from earmark_training.data.endpointing import locate_word
from earmark_training.evaluation.evaluate import evaluate_clips
from earmark_training.evaluation.streams import judge, make_streams

if TYPE_CHECKING:
    from pathlib import Path

EVERY = 8


@pytest.fixture(scope="module")
def model() -> SpotterModel:
    return SpotterModel.load()


@pytest.fixture(scope="module")
def corpus(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Every eighth clip of the validation speakers, and the noises."""
    source, folder = data_dir / "speech_commands", tmp_path_factory.mktemp("validation")
    listed = (source / "validation_list.txt").read_text().split()
    chosen = listed[::EVERY]  # the list goes by words, so that each keeps its share
    for name in chosen:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).symlink_to(source / name)
    shutil.copytree(source / "_background_noise_", folder / "_background_noise_")
    (folder / "validation_list.txt").write_text("\n".join(chosen))
    return prepare(folder, [], tmp_path_factory.mktemp("corpus"), progress=lambda files, **_: files)


def listen(model: SpotterModel, samples: np.ndarray) -> list[Detection]:
    spotter = Spotter(model)
    return spotter.feed((samples * 32767).astype("<i2").tobytes()) + spotter.flush()


def test_clips_are_put_into_the_right_class(model: SpotterModel, corpus: Corpus):
    figures, details, _ = evaluate_clips(model, corpus)
    assert figures[0].value >= 0.93, details["own"]["accuracy_by_class"]


def test_keywords_are_found_in_a_noisy_stream(model: SpotterModel, corpus: Corpus):
    streams = make_streams(corpus, corpus.select("clip", "validation"), snr_db=20, seed=11)
    verdict = judge(streams, [listen(model, s.samples) for s in streams], model.metadata.keyword_names)
    assert verdict.found_fraction >= 0.85, verdict
    assert verdict.repeated.total() <= 0.02 * verdict.spoken.total()


def test_a_detection_brackets_its_word(model: SpotterModel, corpus: Corpus):
    errors_ms = []
    for clip in corpus.select("clip", "validation"):
        samples = corpus.samples(clip)
        word = locate_word(samples, 16_000)
        found = [d for d in listen(model, samples) if d.keyword == clip.text]
        if word and found:
            errors_ms.append(abs(sum(word) - found[0].start_sample - found[0].end_sample) / 2 / 16)
    assert len(errors_ms) > 200
    assert np.median(errors_ms) <= 150
