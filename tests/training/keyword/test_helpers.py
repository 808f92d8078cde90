"""The helpers, which keywords are trained beside."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import soundfile
from earmark_training.keyword.helpers import HELPERS, write_helpers
from earmark_training.keyword.pronunciation import pronounce

if TYPE_CHECKING:
    from pathlib import Path


def test_helpers_are_said_where_the_index_says(tmp_path: Path) -> None:
    clips, similar = write_helpers(pronounce(["computer"], "en"), tmp_path)
    assert {clip.word for clip in clips} == {"happy", "zero", "forward", "jarvis"}
    assert min(sum(clip.word == word for clip in clips) for word in ("happy", "jarvis")) > 200
    assert len(similar) > 500
    for clip in clips[::50]:
        samples, rate = soundfile.read(clip.path, dtype="float32")
        start, end = clip.place
        assert rate == 16_000
        assert 0 <= start < end <= len(samples)
        assert np.square(samples[start:end]).mean() > 1e-4


def test_no_helper_and_no_word_like_one_sounds_like_a_keyword(tmp_path: Path) -> None:
    keywords = pronounce(["foreword", "hey jarvis"], "en")
    words = {clip.word for clip in write_helpers(keywords, tmp_path / "two")[0]}
    assert words == {"happy", "zero", "computer"}
    others = pronounce(["happy", "zero", "forward"], "en")
    _, all_like_it = write_helpers([*others, *pronounce(["banana"], "en")], tmp_path / "all")
    helpers, without = write_helpers([*others, *pronounce(["communication"], "en")], tmp_path / "without")
    assert {clip.word for clip in helpers} == {"computer"}
    assert 0 < len(without) < len(all_like_it)


def test_five_keywords_need_no_helper(tmp_path: Path) -> None:
    assert write_helpers(pronounce(HELPERS, "en"), tmp_path) == ([], [])
