from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
import soundfile
from earmark_audio.endpointing import locate_word
from earmark_training.keyword.synthesis import SynthesisError, available_voices, phonemes, synthesize

if TYPE_CHECKING:
    from pathlib import Path

needs_espeak = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")


@needs_espeak
def test_phonemes_are_spoken_like_their_word(tmp_path: Path):
    (word,) = phonemes("computer", "en")
    assert word[0] == "k"
    assert len(word) == 8
    voice = next(v for v in available_voices("en", 50, seed=1) if v.accepts_phonemes)
    lines = [(voice, "computer"), (voice, f"[[{'|'.join(word)}]]")]
    from_text, from_phonemes = synthesize(lines, tmp_path)
    assert from_text.read_bytes() == from_phonemes.read_bytes()


@needs_espeak
def test_voices_differ_and_speak(tmp_path: Path):
    voices = available_voices("en", 12, seed=3)
    assert voices == available_voices("en", 12, seed=3)
    paths = synthesize([(v, "computer") for v in voices], tmp_path)
    lengths = set()
    for path in paths:
        samples, rate = soundfile.read(path, dtype="float32")
        assert locate_word(samples, rate) is not None
        lengths.add(len(samples))
    assert len(lengths) >= 8


@needs_espeak
def test_other_languages_are_spoken_by_their_own_voices():
    assert all(v.name.startswith("espeak-de") for v in available_voices("de", 10, seed=1))


def test_without_a_synthesizer_the_message_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("PATH", str(tmp_path))
    message = r"no synthesizer that speaks 'en' is installed: install espeak-ng"
    with pytest.raises(SynthesisError, match=message):
        available_voices("en", 3, seed=1)
    assert phonemes("computer", "en") == []
