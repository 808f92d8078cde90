"""Clips and speech of the tiny model's keywords, which are tones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from earmark_spotter import SpotterModel

RATE_HZ = 16_000
KEYWORDS = ("low", "mid", "high")


def _write_clip(path: Path, word: str, seed: int) -> None:
    from support import tiny_model

    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(seed).normal(0, 1e-4, RATE_HZ).astype(np.float32)
    start = 6_000 + 200 * (seed % 10)
    if word in KEYWORDS:
        samples[start : start + 1_920] += tiny_model.tone(word, 0.12)
    elif word != "_silence_":
        noise = np.random.default_rng(seed).normal(0, 1, 1_920).astype(np.float32)
        samples[start : start + 1_920] += 0.3 * noise
    soundfile.write(path, samples, RATE_HZ)


@pytest.fixture(scope="session")
def write_clip() -> Callable[[Path, str, int], None]:
    """Return a function that writes a second of faint noise with 0.12 s of a word, given (path, word, seed).

    A keyword is its tone, any other word is noise, and `_silence_` is nothing.
    """
    return _write_clip


@pytest.fixture(scope="session")
def tone_model(tiny_model_path: Path) -> SpotterModel:
    """Return the tiny model."""
    from earmark_spotter import SpotterModel

    return SpotterModel.load(tiny_model_path)


@pytest.fixture(scope="session")
def tone_clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write clips with list files: of each word 5 for testing, 2 for validation, and 1 for training."""
    folder = tmp_path_factory.mktemp("clips")
    lists: dict[str, list[str]] = {"testing": [], "validation": []}
    for word in (*KEYWORDS, "hiss"):
        for i in range(8):
            name = f"{word}/speaker{i}_nohash_0.wav"
            _write_clip(folder / name, word, i)
            if i < 7:
                lists["testing" if i < 5 else "validation"].append(name)
    for split, names in lists.items():
        (folder / f"{split}_list.txt").write_text("\n".join(names))
    return folder


@pytest.fixture(scope="session")
def tone_speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write 30 s of one speaker with "low" at 5 s, where the transcript has it, and at 25 s."""
    from support import tiny_model

    folder = tmp_path_factory.mktemp("speech") / "7" / "1"
    folder.mkdir(parents=True)
    samples = np.random.default_rng(0).normal(0, 3e-3, 30 * RATE_HZ).astype(np.float32)
    for second in (5, 25):
        samples[second * RATE_HZ : second * RATE_HZ + 1_920] += tiny_model.tone("low", 0.12)
    soundfile.write(folder / "7-1-0000.wav", samples, RATE_HZ)
    text = "AAAAAAAA LOW " + " ".join(["BBBBBBBBBBBBBBBBBB"] * 2)  # 10 + 5 + 20 + 20 of 55
    (folder / "7-1.trans.txt").write_text(f"7-1-0000 {text}")
    return folder.parent.parent


@pytest.fixture(scope="session")
def document(
    tone_model: SpotterModel, tone_clips: Path, tone_speech: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """Return the document of an evaluation of the tiny model on these clips and this speech."""
    from earmark_training.evaluation.evaluate import evaluate
    from earmark_training.evaluation.evaluation_set import from_folders

    folder = tmp_path_factory.mktemp("corpus")
    evaluation_set = from_folders(tone_clips, [tone_speech], None, folder)
    return evaluate(tone_model, evaluation_set)[1]
