"""A tiny data set of synthetic words, and what is made from it once for all tests: corpus, run and models."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile
from support.built_once import build_once

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from earmark_spotter import SpotterModel
    from earmark_training.data.corpus import Corpus
    from earmark_training.data.features import FeatureCache

RATE = 16_000
# Each word is a sweep from one frequency to another, in Hz: a small network learns it in seconds.
WORDS = {"yes": (400.0, 700.0), "no": (1500.0, 900.0), "cat": (2500.0, 3000.0)}

if importlib.util.find_spec("torch") is None:  # in an environment of the client or the server only
    collect_ignore_glob = ["*test_*"]


# A test that uses one of these waits for a training.
_TRAININGS = {"run", "model_path", "verified_dir", "keyword_model", "two_keywords"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that wait for a training as slow."""
    for item in items:
        if _TRAININGS.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


def _clip(word: str, rng: np.random.Generator) -> np.ndarray:
    """Return a second of faint noise with a sweep of 0.4 s, a different one for each word."""
    clip = rng.standard_normal(RATE) * 1e-3
    low, high = (hz * rng.uniform(0.97, 1.03) for hz in WORDS[word])
    time = np.arange(int(0.4 * RATE)) / RATE
    sweep = np.sin(2 * np.pi * (low * time + (high - low) / 0.8 * time**2)) * np.hanning(len(time))
    start = rng.integers(int(0.2 * RATE), len(clip) - len(time) - int(0.1 * RATE))
    clip[start : start + len(time)] += 0.3 * sweep
    return clip.astype(np.float32)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Use one thread per process: several processes run the tests, and torch's threads wait actively."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def short_sounds() -> Iterator[None]:
    """Shorten the sounds without speech from minutes to seconds, and make few of the rooms of training."""
    from earmark_training.data import surroundings
    from earmark_training.evaluation import non_speech, robustness

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(non_speech, "SECONDS", 5)
        patch.setattr(robustness, "TONES_SECONDS", 20)
        patch.setattr(surroundings, "_ROOMS", 20)
        yield


@pytest.fixture(scope="session")
def clips_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write 30 clips of each word, the last 6 for validation, and a recording of noise."""
    folder = tmp_path_factory.mktemp("clips")
    rng = np.random.default_rng(0)
    for word in WORDS:
        (folder / word).mkdir()
        for i in range(30):
            soundfile.write(folder / word / f"{i:08x}_nohash_0.wav", _clip(word, rng), RATE)
    (folder / "_background_noise_").mkdir()
    soundfile.write(folder / "_background_noise_" / "hiss.wav", rng.standard_normal(4 * RATE) * 0.05, RATE)
    validation = [f"{word}/{i:08x}_nohash_0.wav" for word in WORDS for i in range(24, 30)]
    (folder / "validation_list.txt").write_text("\n".join(validation))
    return folder


@pytest.fixture(scope="session")
def speech_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write two utterances of each of five speakers with transcripts, one of which contains "yes"."""
    folder = tmp_path_factory.mktemp("speech")
    rng = np.random.default_rng(1)
    for speaker in ("19", "26", "84", "118", "1272"):
        chapter = folder / speaker / "1"
        chapter.mkdir(parents=True)
        lines = []
        for i, text in enumerate(("WELL YES INDEED", "A LONG DAY")):
            name = f"{speaker}-1-{i:04d}"
            soundfile.write(chapter / f"{name}.flac", rng.standard_normal(3 * RATE) * 0.03, RATE)
            lines.append(f"{name} {text}")
        (chapter / f"{speaker}-1.trans.txt").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="session")
def corpus(clips_dir: Path, speech_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Return the prepared corpus of the clips and the speech."""
    from earmark_training.data.corpus import Corpus, prepare

    def build(folder: Path) -> None:
        prepare(clips_dir, [speech_dir], folder)

    return Corpus(build_once(tmp_path_factory, "corpus", build))


@pytest.fixture(scope="session")
def caches(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[FeatureCache]]:
    """Return the corpus's features for the two cycles of the tiny recipe."""
    from earmark_training.data import features
    from support.tiny_training import RECIPE, use_few_synthetic_sounds

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features, "_SYNTHETIC_PIECES", features._SYNTHETIC_PIECES)
        use_few_synthetic_sounds()

        def build(_: Path) -> None:
            for cycle in range(2):
                features.feature_cache(corpus, RECIPE.shape.front_end, cycle)

        build_once(tmp_path_factory, "features", build)
        yield [features.feature_cache(corpus, RECIPE.shape.front_end, cycle) for cycle in range(2)]


@pytest.fixture(scope="session")
def run(corpus: Corpus, caches: list[FeatureCache], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a complete training run."""
    from earmark_training.model.train import train
    from support.tiny_training import RECIPE

    assert caches  # the features are there
    return build_once(tmp_path_factory, "run", lambda folder: train(corpus, RECIPE, folder))


@pytest.fixture(scope="session")
def model_path(run: Path, corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the model file that was exported from the run."""
    from earmark_training.evaluation.export import export_model
    from earmark_training.model.checkpoint import load_trained

    def build(folder: Path) -> None:
        out = folder / "model.onnx"
        export_model(load_trained(run), corpus, out, name="synthetic", version="1", fa_per_hour=10)

    return build_once(tmp_path_factory, "model", build) / "model.onnx"


@pytest.fixture
def model(model_path: Path) -> SpotterModel:
    """Return the exported model."""
    from earmark_spotter import SpotterModel

    return SpotterModel.load(model_path)
