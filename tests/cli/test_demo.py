"""`earmark demo` and its bundled recording."""

from __future__ import annotations

import json
from pathlib import Path

import earmark_cli
import pytest
import soundfile
from support.earmark_command import earmark, json_lines

SAMPLES = Path(earmark_cli.__file__).parent / "samples"
TRANSCRIPT = json.loads((SAMPLES / "demo.json").read_text())


def test_the_transcript_fits_the_recording() -> None:
    about = soundfile.info(SAMPLES / TRANSCRIPT["recording"])
    assert (about.samplerate, about.channels) == (16_000, 1)
    assert about.duration == pytest.approx(TRANSCRIPT["duration_s"])
    assert 20 <= about.duration <= 30
    assert (SAMPLES / TRANSCRIPT["recording"]).stat().st_size < 400_000
    end_s = 0.0
    for line in TRANSCRIPT["said"]:
        assert end_s < line["start_s"] < line["end_s"] < about.duration
        end_s = line["end_s"]
    words = [line["keyword"] for line in TRANSCRIPT["said"] if line["keyword"]]
    assert len(set(words)) >= 8
    assert len({line["voice"] for line in TRANSCRIPT["said"]}) >= 4
    assert any(line["keyword"] is None for line in TRANSCRIPT["said"])


def test_the_bundled_model_detects_every_keyword_in_place() -> None:
    """The demo as a newcomer runs it, without a server, but as fast as possible."""
    done = earmark("demo", "--fast", "--json")
    assert done.returncode == 0
    assert "Next: `earmark listen`" in done.stderr
    detections = [line for line in json_lines(done.stdout) if line["type"] == "detection"]
    spoken = [line for line in TRANSCRIPT["said"] if line["keyword"]]
    assert [line["keyword"] for line in detections] == [line["keyword"] for line in spoken]
    for detection, keyword in zip(detections, spoken, strict=True):
        middle_s = (detection["start_s"] + detection["end_s"]) / 2
        assert keyword["start_s"] - 0.1 < middle_s < keyword["end_s"] + 0.1
