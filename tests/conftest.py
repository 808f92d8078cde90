"""Fixtures that all tests share."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

# A test that imports ONNX Runtime before the listener does would switch its telemetry on for all.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

# Where Ctrl-C is ignored, as in a shell's background, programs that are started would ignore it too.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Tests are imported by path (importmode=importlib). This lets them import `support` and `benchmarks`.
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).resolve().parents[1])]


@pytest.fixture(scope="session")
def tiny_model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a tiny model whose words are tones; see tiny_model.py."""
    from support import tiny_model

    return tiny_model.build(tmp_path_factory.mktemp("model") / "tiny.onnx")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder with real speech, for tests that want it; they are skipped where there is none."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    found = Path(os.environ["EARMARK_DATA"]) if "EARMARK_DATA" in os.environ else beside
    if not found.is_dir():
        pytest.skip("no real speech: set EARMARK_DATA to a folder with speech_commands/ in it")
    return found


@pytest.fixture(scope="module")
def address(tiny_model_path: Path) -> Iterator[str]:
    """The address of a server with the tiny model, whose words are the tones low, mid and high."""
    from earmark_server.embedded import serve_in_thread

    with serve_in_thread(model=(str(tiny_model_path),)) as address:
        yield address


@pytest.fixture(scope="session")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording of the tones low, mid and high."""
    import soundfile
    from support.earmark_command import RATE_HZ, samples

    path = tmp_path_factory.mktemp("recordings") / "words.wav"
    soundfile.write(path, samples(), RATE_HZ)
    return path
