"""`earmark spot`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile
from support import tiny_model
from support.earmark_command import RATE_HZ, SECONDS, WORDS, earmark, json_lines, samples, without_time

if TYPE_CHECKING:
    from pathlib import Path


def test_the_text_output_of_a_recording(address: str, recording: Path) -> None:
    done = earmark("spot", recording, "--server", address)
    assert (done.returncode, done.stderr) == (0, "")
    *detections, summary = done.stdout.splitlines()
    assert [line.split()[5] for line in detections] == ["low", "mid", "high"]
    assert re.fullmatch(r" +0\.\d\d s \N{EN DASH} 0\.\d\d s  low   [01]\.\d\d", detections[0])
    assert re.fullmatch(
        re.escape(str(recording))
        + r": 4\.00 s of audio, 3 detections, took \d+\.\d\d s \(\d+\.\d times real time\)",
        summary,
    )


def test_the_json_output_of_a_recording(address: str, recording: Path) -> None:
    done = earmark("spot", recording, "--server", address, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    started, *detections, ended = json_lines(done.stdout)
    assert {**started, "request_id": "", "time": ""} == {
        "type": "started",
        "time": "",
        "source": str(recording),
        "model": "tiny",
        "model_version": "1.0.0",
        "keywords": [
            {"keyword": word, "threshold": 0.6, "refractory_s": 0.5, "model": "tiny"}
            for word in ("low", "mid", "high")
        ],
        "step_s": 0.02,
        "receptive_field_s": 0.07,
        "request_id": "",
        "models": [{"name": "tiny", "version": "1.0.0", "step_s": 0.02, "receptive_field_s": 0.07}],
    }
    for line, (start_s, word) in zip(detections, WORDS, strict=True):
        assert list(line) == [
            *("type", "time", "source", "keyword", "confidence", "start_s", "end_s", "id"),
            *("level_dbfs", "snr_db", "model"),
        ]
        assert (line["type"], line["source"], line["keyword"]) == ("detection", str(recording), word)
        assert line["start_s"] == pytest.approx(start_s, abs=0.1)
        assert line["start_s"] < line["end_s"]
        assert 0.6 < line["confidence"] <= 1
    assert list(ended) == [
        *("type", "time", "source", "audio_s", "detections", "elapsed_s", "interrupted", "speed")
    ]
    assert (ended["type"], ended["audio_s"], ended["detections"]) == ("ended", 4.0, 3)
    assert ended["interrupted"] is False


def test_real_time_changes_only_the_elapsed_time(address: str, recording: Path) -> None:
    fast = json_lines(earmark("spot", recording, "--server", address, "--json").stdout)
    paced = json_lines(earmark("spot", recording, "--server", address, "--json", "--pace").stdout)
    assert without_time(paced[1:-1]) == without_time(fast[1:-1])
    assert paced[-1]["elapsed_s"] == pytest.approx(SECONDS, abs=1.0)
    assert fast[-1]["elapsed_s"] < 2.0


@pytest.mark.parametrize("suffix", ["flac", "ogg", "mp3"])
def test_other_file_formats_have_the_same_detections(address: str, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"words.{suffix}"
    samples = tiny_model.recording(WORDS, SECONDS, rate_hz=44_100)
    soundfile.write(path, np.stack([samples, samples], axis=1), 44_100)
    done = earmark("spot", path, "--server", address, "--json")
    assert [line["keyword"] for line in json_lines(done.stdout)[1:-1]] == ["low", "mid", "high"]


def test_raw_samples_are_read_from_standard_input(address: str) -> None:
    stereo_float = np.repeat(tiny_model.recording(WORDS, SECONDS, rate_hz=48_000), 2).astype("<f4")
    for data, form in [
        (samples().tobytes(), []),
        (stereo_float.tobytes(), ["--rate", "48000", "--encoding", "float32", "--channels", "2"]),
    ]:
        done = earmark("spot", "-", "--server", address, "--json", *form, stdin=data)
        *_, ended = lines = json_lines(done.stdout)
        assert [line["keyword"] for line in lines[1:-1]] == ["low", "mid", "high"]
        assert (ended["source"], ended["audio_s"]) == ("-", 4.0)


def test_keyword_selects_keywords_and_thresholds(address: str, recording: Path) -> None:
    done = earmark(
        "spot", recording, "--server", address, "--json", "--keyword", "mid", "--keyword", "high=0.75"
    )
    started, *detections, _ = json_lines(done.stdout)
    assert {one["keyword"]: one["threshold"] for one in started["keywords"]} == {"mid": 0.6, "high": 0.75}
    assert [line["keyword"] for line in detections] == ["mid", "high"]


def test_threshold_applies_to_keywords_without_their_own(address: str, recording: Path) -> None:
    for chosen, expected in [
        ([], {"low": 0.9, "mid": 0.9, "high": 0.9}),
        (["--keyword", "mid", "--keyword", "high=0.75"], {"mid": 0.9, "high": 0.75}),
    ]:
        done = earmark("spot", recording, "--server", address, "--json", "--threshold", "0.9", *chosen)
        started, *_ = json_lines(done.stdout)
        assert {one["keyword"]: one["threshold"] for one in started["keywords"]} == expected


def test_a_bad_recording_does_not_stop_the_others(address: str, recording: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.wav"
    text.write_text("no sound")
    done = earmark("spot", text, recording, tmp_path / "absent.wav", "--server", address)
    assert done.returncode == 1
    assert done.stdout.splitlines()[0] == str(recording)
    assert "3 detections" in done.stdout
    assert [line.split(":")[1].strip() for line in done.stderr.splitlines()] == [
        str(text),
        str(tmp_path / "absent.wav"),
    ]
    lines = json_lines(earmark("spot", text, recording, "--server", address, "--json").stdout)
    assert list(lines[0]) == ["type", "time", "source", "message", "status", "reason"]
    assert (lines[0]["type"], lines[0]["source"]) == ("error", str(text))
    assert lines[-1]["type"] == "ended"


@pytest.mark.parametrize("command", ["spot", "classify", "check"])
def test_a_recording_that_is_named_twice_has_two_results(address: str, recording: Path, command: str) -> None:
    server = () if command == "check" else ("--server", address)
    done = earmark(command, recording, recording, *server, "--json")
    (last,) = {line["type"] for line in json_lines(done.stdout)} & {"ended", "classification", "audio"}
    assert [line["type"] for line in json_lines(done.stdout)].count(last) == 2


@pytest.mark.parametrize("command", ["spot", "classify"])
def test_a_file_that_cannot_be_examined_does_not_stop_the_others(
    address: str, recording: Path, tmp_path: Path, command: str
) -> None:
    name = tmp_path / f"{'x' * 300}.wav"
    done = earmark(command, name, recording, "--server", address, "--json")
    assert done.returncode == 1
    assert "x.wav: File name too long" in done.stderr
    first, *others = json_lines(done.stdout)
    assert (first["type"], first["source"]) == ("error", str(name))
    assert others[-1]["source"] == str(recording)


@pytest.mark.parametrize("command", ["spot", "classify"])
def test_a_file_that_is_not_a_recording_is_reported(address: str, tmp_path: Path, command: str) -> None:
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("no sound\n" * 1000)
    soundfile.write(tmp_path / "nothing.wav", np.zeros(0), RATE_HZ)
    for name in ["absent.wav", "", "empty.wav", "text.wav", "nothing.wav"]:
        done = earmark(command, tmp_path / name, "--server", address)
        assert (done.returncode, done.stdout) == (1, ""), name
        assert done.stderr.startswith("earmark: ")
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "no audio"),
        (b"\x00", "sample"),
        (bytes(32_001), "sample"),
        (b"RIFF" + bytes(1000), "RIFF file, which is not supported"),
    ],
)
def test_invalid_raw_samples_are_reported(address: str, data: bytes, sentence: str) -> None:
    done = earmark("spot", "-", "--server", address, stdin=data)
    assert done.returncode == 1
    assert sentence in done.stderr


def test_nan_in_raw_floats_is_reported(address: str) -> None:
    data = np.array([0.0, np.nan], "<f4").tobytes()
    done = earmark("spot", "-", "--encoding", "float32", "--server", address, stdin=data)
    assert done.returncode == 1
    assert re.search("NaN|finite", done.stderr)


def test_an_unknown_keyword_or_model_is_reported(address: str, recording: Path) -> None:
    done = earmark("spot", recording, "--keyword", "hello", "--server", address)
    assert (done.returncode, done.stdout) == (1, "")
    assert "hello" in done.stderr
    done = earmark("spot", recording, "--model", "other", "--server", address)
    assert (done.returncode, done.stdout) == (1, "")
    assert "other" in done.stderr
