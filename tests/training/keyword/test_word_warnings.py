from __future__ import annotations

import pytest
from earmark_spotter import SpotterModel
from earmark_training.keyword.pronunciation import pronounce
from earmark_training.keyword.training_set import NeuralVoices
from earmark_training.keyword.word_warnings import word_warnings
from support.tiny_voices import TinyReader

pytest.importorskip("phonemizer", reason="the extra `voices` is not installed")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("keyword", "expected"),
    [
        ("up", ["'up' is short (2 phonemes)", "'up' is part of common words (c"]),
        ("write", ["'write' is short", "sounds like right"]),
        ("flour", ["'flour' sounds like flower"]),
        ("fright", ["'fright' sounds like 'right'"]),
        ("computer", []),
        ("hey earmark", []),
    ],
)
def test_a_keyword_that_is_hard_to_spot_causes_a_warning(keyword: str, expected: list[str], tmp_path):
    voices = NeuralVoices(TinyReader(tmp_path), "en", {keyword: pronounce([keyword], "en")[0]})
    warnings = word_warnings(voices, SpotterModel.load().metadata)
    for part in expected:
        assert any(part in w for w in warnings), warnings
    if not expected:
        assert warnings == []


def test_two_keywords_that_are_alike_cause_a_warning(tmp_path):
    words = ["computer", "commuter", "banana"]
    voices = NeuralVoices(TinyReader(tmp_path), "en", dict(zip(words, pronounce(words, "en"), strict=True)))
    alike = [w for w in word_warnings(voices, SpotterModel.load().metadata) if "sounds like" in w]
    assert alike == ["'computer' sounds like 'commuter': expect that one is detected as the other"]
