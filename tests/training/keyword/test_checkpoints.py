from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from earmark_training.errors import OutputError
from earmark_training.keyword.checkpoints import only_training_of, unfinished

if TYPE_CHECKING:
    from pathlib import Path


def test_two_trainings_at_once_do_not_share_checkpoints(tmp_path: Path):
    out = tmp_path / "computer.onnx"
    with only_training_of(out):
        with pytest.raises(OutputError, match=r"another command is making .*computer\.onnx: wait"):
            only_training_of(out).__enter__()
        with only_training_of(tmp_path / "jarvis.onnx"):
            (unfinished(tmp_path / "jarvis.onnx") / "without a checkpoint yet").mkdir()
    assert not list(tmp_path.iterdir())
    with only_training_of(out):
        (unfinished(out) / "0.checkpoint").touch()
    assert (unfinished(out) / "0.checkpoint").is_file()


def test_a_model_file_and_its_checkpoints_have_different_names(tmp_path: Path):
    with pytest.raises(OutputError, match="checkpoints have this name"):
        only_training_of(tmp_path / "computer.unfinished").__enter__()


def test_a_file_in_the_place_of_the_checkpoints_is_reported(tmp_path: Path):
    (tmp_path / "computer.unfinished").touch()
    with pytest.raises(OutputError, match=r"computer\.unfinished cannot be written: File exists"):
        only_training_of(tmp_path / "computer.onnx").__enter__()
