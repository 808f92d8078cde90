"""The models in memory are counted until they are freed."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import pytest
from earmark_server.inference.model_memory import ModelMemory
from earmark_spotter import ModelError

if TYPE_CHECKING:
    from pathlib import Path


def test_a_model_counts_from_its_loading_until_it_is_freed(tiny_model_path: Path) -> None:
    content, memory = tiny_model_path.read_bytes(), ModelMemory()
    one = memory.load(content, threads=1)
    other = memory.load(content, threads=1)
    with pytest.raises(ModelError):
        memory.load(b"no model", threads=1)
    assert memory.file_bytes == 2 * len(content)
    del one
    gc.collect()
    assert memory.file_bytes == len(content)
    del other
    gc.collect()
    assert memory.file_bytes == 0
