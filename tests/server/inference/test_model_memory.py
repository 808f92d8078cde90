"""The models in memory are counted until they are freed."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import pytest
from earmark_server.inference.model_memory import ModelMemory
from earmark_spotter import ModelError
from earmark_spotter.speech_encoder import bundled_speech_encoder
from support import tiny_model

if TYPE_CHECKING:
    from pathlib import Path


def test_a_model_counts_from_its_loading_until_it_is_freed(tiny_model_path: Path) -> None:
    content, memory = tiny_model_path.read_bytes(), ModelMemory(threads=1)
    one = memory.load(content)
    other = memory.load(content)
    with pytest.raises(ModelError):
        memory.load(b"no model")
    assert memory.file_bytes == 2 * len(content)
    del one
    gc.collect()
    assert memory.file_bytes == len(content)
    del other
    gc.collect()
    assert memory.file_bytes == 0


def test_the_speech_encoder_counts_once_and_stays(tmp_path: Path) -> None:
    path = tiny_model.build(
        tmp_path / "m.onnx",
        document=tiny_model.encoded_metadata(),
        encoded_verifier=tiny_model.encoded_verifier(),
    )
    content, memory = path.read_bytes(), ModelMemory(threads=1)
    models = [memory.load(content) for _ in range(2)]
    encoder_bytes = bundled_speech_encoder(1).file_bytes
    assert memory.file_bytes == 2 * len(content) + encoder_bytes
    models.clear()
    gc.collect()
    assert memory.file_bytes == encoder_bytes
