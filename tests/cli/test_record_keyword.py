"""Takes of a keyword: found in what is recorded, checked, compared and stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile
from earmark_audio.utterance import UtteranceError
from earmark_cli.command_line import build_parser
from earmark_cli.record_keyword.command import run
from earmark_cli.record_keyword.likeness import is_unlike, spectra
from earmark_cli.record_keyword.take_finder import Take, TakeFinder
from earmark_cli.record_keyword.takes_folder import TakesFolder
from earmark_cli.usage_error import UsageError

if TYPE_CHECKING:
    from pathlib import Path

RATE = 16_000
BLOCK = RATE // 10


def word(*hz: float, seconds: float = 0.5, level: float = 0.3, seed: int = 0) -> np.ndarray:
    """Return a word: voiced sounds of these formants, one after the other, slightly varied."""
    rng = np.random.default_rng(seed)
    sounds = []
    for formant in hz:
        time = np.arange(int(seconds * rng.uniform(0.9, 1.1) * RATE / len(hz))) / RATE
        pitch = 120 * rng.uniform(0.95, 1.05)
        harmonics = np.arange(1, 40) * pitch
        weights = np.exp(-(((harmonics - formant) / 400) ** 2)) + 0.02
        sounds.append(sum(w * np.sin(2 * np.pi * f * time) for f, w in zip(harmonics, weights, strict=True)))
    samples = np.concatenate(sounds)
    return (level * samples / np.abs(samples).max()).astype(np.float32)


def said(*pieces: np.ndarray | float) -> np.ndarray:
    """Return words and pauses in seconds, in faint noise."""
    parts = [np.zeros(int(p * RATE), np.float32) if isinstance(p, float) else p for p in pieces]
    samples = np.concatenate(parts)
    return samples + np.random.default_rng(1).normal(0, 3e-4, len(samples)).astype(np.float32)


def find(samples: np.ndarray) -> Take | None:
    finder = TakeFinder(RATE)
    for start in range(0, len(samples), BLOCK):
        if take := finder.push(samples[start : start + BLOCK]):
            return take
    return None


def test_a_take_is_the_word_with_a_margin_as_soon_as_it_is_over():
    spoken = word(500, 1500, 800)
    take = find(said(1.0, spoken, 2.0))
    assert take is not None
    assert len(take.spoken) / RATE == pytest.approx(len(spoken) / RATE, abs=0.1)
    assert len(take.samples) / RATE == pytest.approx(len(spoken) / RATE + 0.8, abs=0.15)
    assert take.peak_db == pytest.approx(-10.5, abs=1)


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        (said(9.0), "no word in 8 s"),
        (said(1.0, word(500, 1500, level=0.01), 2.0), "too quiet"),
        (np.clip(said(1.0, 5 * word(500, 1500), 2.0), -1, 1), "clipped"),
        (said(word(500, 1500), 2.0), "beginning is cut off"),
        (said(1.0, word(500, 900, 1500, 700, seconds=5.0), 2.0), "no pause after it"),
        (said(1.0, word(500, 900, 1500, 700, seconds=3.0), 2.0), "3.. s of speech"),
    ],
)
def test_what_cannot_be_used_is_rejected_with_the_reason(samples: np.ndarray, reason: str):
    with pytest.raises(UtteranceError, match=reason):
        find(samples)


def test_a_click_is_no_word():
    click = np.full(int(0.05 * RATE), 0.5, np.float32)
    assert find(said(1.0, click, 2.0)) is None


def test_words_are_compared_at_any_sample_rate():
    takes = [spectra(word(500, 1500, 800, seed=i), RATE) for i in range(5)]
    same = spectra(np.repeat(word(500, 1500, 800, seed=9), 3)[::1], 3 * RATE)
    other = spectra(word(1800, 400, 2500, seed=9), RATE)
    assert not is_unlike(same, takes)
    assert is_unlike(other, takes)
    assert not is_unlike(other, takes[:2])  # too few to know


def take(*hz: float, seed: int) -> Take:
    spoken = word(*hz, seed=seed)
    return Take(said(0.4, spoken, 0.4), (int(0.4 * RATE), int(0.4 * RATE) + len(spoken)), RATE)


def test_takes_are_numbered_and_a_started_folder_goes_on(tmp_path: Path):
    folder = tmp_path / "hey computer"
    first = TakesFolder(folder, "hey computer")
    names = [path.name for i in range(4) if (path := first.add(take(500, 1500, 800, seed=i)))]
    assert names == [f"hey-computer-{n:03d}.wav" for n in range(1, 5)]
    again = TakesFolder(folder, "hey computer")
    assert again.count == 4
    assert again.add(take(1800, 400, 2500, seed=5)) is None  # compared with those of the folder
    path = again.add(take(500, 1500, 800, seed=6))
    assert path is not None
    assert path.name == "hey-computer-005.wav"
    assert soundfile.info(path).subtype == "PCM_16"
    assert len(list(folder.iterdir())) == again.count == 5


def test_two_takes_that_are_unlike_the_others_but_like_each_other_are_another_voice(tmp_path: Path):
    takes = TakesFolder(tmp_path / "computer", "computer")
    for i in range(4):
        takes.add(take(500, 1500, 800, seed=i))
    assert takes.add(take(1800, 400, 2500, seed=5)) is None
    assert takes.add(take(1800, 400, 2500, seed=6)) is not None
    assert takes.count == 6


@pytest.mark.parametrize("keyword", ["", "  ", "..", "66"])
def test_a_keyword_without_letters_is_refused(keyword: str):
    with pytest.raises(UsageError, match="is not a word: give the keyword in letters"):
        run(build_parser().parse_args(["record-keyword", keyword]))
