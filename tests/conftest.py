"""Fixtures that all tests share."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

# A test that imports ONNX Runtime before the listener does would switch its telemetry on for all.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

# Where Ctrl-C is ignored, as in a shell's background, programs that are started would ignore it too.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Tests are imported by path (importmode=importlib); this lets them import what lies beside this file.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def tiny_model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a tiny model whose words are tones; see tiny_model.py."""
    import tiny_model

    return tiny_model.build(tmp_path_factory.mktemp("model") / "tiny.onnx")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder with real speech, for tests that want it; they are skipped where there is none."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    found = Path(os.environ["EARMARK_DATA"]) if "EARMARK_DATA" in os.environ else beside
    if not found.is_dir():
        pytest.skip("no real speech: set EARMARK_DATA to a folder with speech_commands/ in it")
    return found
