"""`earmark classify`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import soundfile
from support import tiny_model
from support.earmark_command import RATE_HZ, earmark, json_lines

if TYPE_CHECKING:
    from pathlib import Path


def test_clips_are_classified(address: str, tmp_path: Path) -> None:
    for word in ("low", "high"):
        clip = (tiny_model.recording([(0.3, word)], 0.6) * 32768).astype("<i2")
        soundfile.write(tmp_path / f"{word}.flac", clip, RATE_HZ)
    done = earmark("classify", tmp_path / "low.flac", tmp_path / "high.flac", "--server", address)
    assert (done.returncode, done.stderr) == (0, "")
    low, high = done.stdout.splitlines()
    assert re.fullmatch(
        re.escape(str(tmp_path / "low.flac")) + r": low [01]\.\d\d  \(\w+ 0\.\d\d, \w+ 0\.\d\d\)", low
    )
    assert ": high " in high
    done = earmark("classify", tmp_path / "low.flac", "--server", address, "--json", "--top", "2")
    (line,) = json_lines(done.stdout)
    assert list(line) == [
        *("type", "time", "source", "label", "scores", "audio_s", "processing_s", "model", "model_version")
    ]
    assert (line["type"], line["label"], len(line["scores"])) == ("classification", "low", 2)
