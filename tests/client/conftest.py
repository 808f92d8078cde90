"""Servers for the client's tests."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

sys.path.insert(0, str(Path(__file__).parent))


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
    from command_line import RATE_HZ, samples

    path = tmp_path_factory.mktemp("recordings") / "words.wav"
    soundfile.write(path, samples(), RATE_HZ)
    return path
