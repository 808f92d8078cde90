"""The bundled recording: what is said in it is what is heard in it."""

from __future__ import annotations

import json
from pathlib import Path

import earmark_cli
import pytest
import soundfile
from support.earmark_command import earmark, json_lines

SAMPLES = Path(earmark_cli.__file__).parent / "samples"
ANSWER = json.loads((SAMPLES / "demo.json").read_text())


def test_the_answer_fits_the_recording() -> None:
    about = soundfile.info(SAMPLES / ANSWER["recording"])
    assert (about.samplerate, about.channels) == (16_000, 1)
    assert about.duration == pytest.approx(ANSWER["duration_s"])
    assert 20 <= about.duration <= 30
    assert (SAMPLES / ANSWER["recording"]).stat().st_size < 400_000
    end_s = 0.0
    for line in ANSWER["said"]:
        assert end_s < line["start_s"] < line["end_s"] < about.duration
        end_s = line["end_s"]
    words = [line["keyword"] for line in ANSWER["said"] if line["keyword"]]
    assert len(set(words)) >= 8
    assert len({line["voice"] for line in ANSWER["said"]}) >= 4
    assert any(line["keyword"] is None for line in ANSWER["said"])


def test_the_bundled_model_hears_what_is_said_and_where() -> None:
    """The demo as a newcomer runs it, but as fast as it goes: no server, no options."""
    done = earmark("demo", "--fast", "--json")
    assert done.returncode == 0
    found = [line for line in json_lines(done.stdout) if line["type"] == "detection"]
    said = [line for line in ANSWER["said"] if line["keyword"]]
    assert [line["keyword"] for line in found] == [line["keyword"] for line in said]
    for heard, spoken in zip(found, said, strict=True):
        middle_s = (heard["start_s"] + heard["end_s"]) / 2
        assert spoken["start_s"] - 0.1 < middle_s < spoken["end_s"] + 0.1
