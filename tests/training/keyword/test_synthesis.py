"""Synthesized voices, and words that sound like a keyword."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
import soundfile
from earmark_training.data.endpointing import locate_word
from earmark_training.keyword import confusables
from earmark_training.keyword.negatives import holds
from earmark_training.keyword.sentences import lines
from earmark_training.keyword.synthesis import SynthesisError, available_voices, phonemes, speak

if TYPE_CHECKING:
    from pathlib import Path

COMPUTER = [["k", "@", "m", "p", "j", "'u:", "t", "3"]]  # as eSpeak NG says it
needs_espeak = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")


def test_parts_are_beginnings_and_ends_of_the_keyword():
    parts = confusables.parts(COMPUTER)
    assert "[[k|@|m|p|j|'u:]]" in parts  # compu-
    assert "[[j|'u:|t|3]]" in parts  # -uter
    assert "[[k|@|m|p|j|'u:|t|3]]" not in parts


def test_neighbours_differ_from_the_keyword_and_from_each_other():
    found = confusables.neighbours(COMPUTER, 100, seed=1)
    assert len(found) == len(set(found)) == 100
    assert "[[k|@|m|p|j|'u:|t|3]]" not in found
    assert found == confusables.neighbours(COMPUTER, 100, seed=1)
    sizes = {len(f.strip("[]").split("|")) for f in found}
    assert sizes <= set(range(5, 12))


def test_neighbours_of_a_short_word_are_words():
    for found in confusables.neighbours([["g", "'oU"]], 20, seed=1):
        assert any(map(confusables.is_vowel, found.strip("[]").split("|")))
        assert found != "[[g|'oU]]"


@needs_espeak
def test_espeak_tells_its_phonemes_and_reads_them_back(tmp_path: Path):
    (word,) = phonemes("computer", "en")
    assert word[0] == "k"
    assert len(word) == 8
    voice = next(v for v in available_voices("en", 50, seed=1) if v.takes_phonemes)
    by_name, by_sounds = speak([(voice, "computer"), (voice, f"[[{'|'.join(word)}]]")], tmp_path)
    assert by_name.read_bytes() == by_sounds.read_bytes()


@needs_espeak
def test_voices_are_different_and_say_something(tmp_path: Path):
    voices = available_voices("en", 12, seed=3)
    assert voices == available_voices("en", 12, seed=3)
    paths = speak([(v, "computer") for v in voices], tmp_path)
    lengths = set()
    for path in paths:
        samples, rate = soundfile.read(path, dtype="float32")
        assert locate_word(samples, rate) is not None
        lengths.add(len(samples))
    assert len(lengths) >= 8


@needs_espeak
def test_other_languages_are_spoken_by_their_own_voices():
    assert all(v.name.startswith("espeak-de") for v in available_voices("de", 10, seed=1))


def test_without_a_synthesizer_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        SynthesisError, match=r"no synthesizer that speaks 'en' is installed: install espeak-ng"
    ):
        available_voices("en", 3, seed=1)
    assert phonemes("computer", "en") == []


def test_text_to_read_is_the_same_for_the_same_seed():
    read = lines(300, seed=2)
    assert read == lines(300, seed=2)
    assert len(set(read)) > 200
    assert any(holds(line, "mirror") for line in read)  # which is left out where it is the keyword
