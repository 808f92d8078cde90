from __future__ import annotations

from typing import TYPE_CHECKING

from earmark_training.evaluation.evaluation_set import from_folders
from support.tiny_model import TONES_HZ

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_a_test_archive_is_used_completely(write_clip: Callable[[Path, str, int], None], tmp_path: Path):
    for word in (*TONES_HZ, "_silence_", "_unknown_"):
        for i in range(3):
            write_clip(tmp_path / "archive" / word / f"{i}.wav", word, i)
    evaluation_set = from_folders(tmp_path / "archive", [], None, tmp_path / "corpus")
    assert "a test archive: all of them" in evaluation_set.description
    assert len(evaluation_set.corpus.select("clip", "validation")) == 15
