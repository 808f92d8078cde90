from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from earmark_spotter import SpotterModel
from earmark_training.keyword.pronunciation import pronounce
from earmark_training.keyword.training_set import NeuralVoices
from earmark_training.keyword.word_warnings import word_warnings
from support.tiny_voices import TinyReader

if TYPE_CHECKING:
    from pathlib import Path

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
def test_a_keyword_that_is_hard_to_spot_causes_a_warning(keyword: str, expected: list[str], tmp_path: Path):
    warnings = _warnings([keyword], tmp_path)
    for part in expected:
        assert any(part in w for w in warnings), warnings
    if not expected:
        assert warnings == []


def test_two_keywords_that_are_alike_cause_a_warning(tmp_path: Path):
    alike = [w for w in _warnings(["computer", "commuter", "banana"], tmp_path) if "sounds like" in w]
    assert alike == ["'computer' sounds like 'commuter': expect that one is detected as the other"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("computer", "hey computer"),
        ("hey computer", "Computer"),
        ("phone", "telephone operator"),  # it is no word of the phrase
        ("the end", "to the end"),
    ],
)
@pytest.mark.parametrize("with_voices", [True, False])
def test_a_keyword_that_is_part_of_another_causes_a_warning(
    one: str, other: str, with_voices: bool, tmp_path: Path
):
    short, long = sorted((one, other), key=len)
    (warning,) = [w for w in _warnings([one, other], tmp_path, with_voices) if "is part of '" in w]
    assert warning.startswith(f"{short!r} is part of {long!r}: expect both to be detected when {long!r} is")


def test_a_keyword_that_is_part_of_another_by_its_sound_causes_a_warning(tmp_path: Path):
    (warning,) = [w for w in _warnings(["nose", "snows in june"], tmp_path) if "is part of '" in w]
    assert "'nose' is part of 'snows in june'" in warning


@pytest.mark.parametrize("keywords", [["computer", "hey jarvis"], ["ear", "heart attack"]])
def test_keywords_of_which_none_is_part_of_the_other_cause_no_such_warning(
    keywords: list[str], tmp_path: Path
):
    assert not any("is part of '" in w for w in _warnings(keywords, tmp_path))


@pytest.mark.slow
def test_a_phrase_with_a_keyword_of_the_bundled_model_causes_a_warning(tmp_path: Path):
    assert _warnings(["hey marvin stop"], tmp_path) == [
        "'hey marvin stop' contains 'stop', a keyword of earmark-en: a client that uses both models will "
        "get both"
    ]


def _warnings(keywords: list[str], folder: Path, with_voices: bool = True) -> list[str]:
    spoken = dict(zip(keywords, pronounce(keywords, "en"), strict=True))
    voices = NeuralVoices(TinyReader(folder), "en", spoken) if with_voices else None
    return word_warnings(keywords, voices, SpotterModel.load().metadata)
