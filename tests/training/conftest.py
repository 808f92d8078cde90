"""A tiny data set of made-up words: chords and sweeps that a small network learns in seconds."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile

if TYPE_CHECKING:
    from pathlib import Path

RATE = 16_000
WORDS = {"yes": (400.0, 700.0), "no": (1500.0, 900.0), "cat": (2500.0, 3000.0)}

if importlib.util.find_spec("torch") is None:  # the client's or the server's environment
    collect_ignore_glob = ["*test_*"]


def _spoken(word: str, rng: np.random.Generator) -> np.ndarray:
    """A second of faint noise with a 0.4 s sweep in it, different for every word."""
    clip = rng.standard_normal(RATE) * 1e-3
    low, high = (hz * rng.uniform(0.97, 1.03) for hz in WORDS[word])
    time = np.arange(int(0.4 * RATE)) / RATE
    sweep = np.sin(2 * np.pi * (low * time + (high - low) / 0.8 * time**2)) * np.hanning(len(time))
    start = rng.integers(int(0.2 * RATE), len(clip) - len(time) - int(0.1 * RATE))
    clip[start : start + len(time)] += 0.3 * sweep
    return clip.astype(np.float32)


@pytest.fixture(scope="session")
def clips_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    rng = np.random.default_rng(0)
    for word in WORDS:
        (folder / word).mkdir()
        for i in range(30):
            soundfile.write(folder / word / f"{i:08x}_nohash_0.wav", _spoken(word, rng), RATE)
    (folder / "_background_noise_").mkdir()
    soundfile.write(folder / "_background_noise_" / "hiss.wav", rng.standard_normal(4 * RATE) * 0.05, RATE)
    validation = [f"{word}/{i:08x}_nohash_0.wav" for word in WORDS for i in range(24, 30)]
    (folder / "validation_list.txt").write_text("\n".join(validation))
    return folder


@pytest.fixture(scope="session")
def speech_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Utterances of two speakers with transcripts; in one of them somebody says yes."""
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
