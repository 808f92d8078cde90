"""What `earmark spot`, `classify`, `models` and `health` print, and how they end."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile
from support import tiny_model
from support.earmark_command import RATE_HZ, SECONDS, WORDS, earmark, earmark_process, json_lines, samples

if TYPE_CHECKING:
    from pathlib import Path


def test_a_recording_is_marked_for_people(address: str, recording: Path) -> None:
    done = earmark("spot", recording, "--server", address)
    assert (done.returncode, done.stderr) == (0, "")
    *found, summary = done.stdout.splitlines()
    assert [line.split()[5] for line in found] == ["low", "mid", "high"]
    assert re.fullmatch(r" +0\.\d\d s \N{EN DASH} 0\.\d\d s  low   [01]\.\d\d", found[0])
    assert re.fullmatch(
        re.escape(str(recording))
        + r": 4\.00 s of audio, 3 detections, took \d+\.\d\d s \(\d+\.\d times real time\)",
        summary,
    )


def test_json_lines_have_stable_names(address: str, recording: Path) -> None:
    done = earmark("spot", recording, "--server", address, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    started, *found, ended = json_lines(done.stdout)
    assert {**started, "request_id": ""} == {
        "type": "started",
        "source": str(recording),
        "model": "tiny",
        "model_version": "1.0.0",
        "keywords": [
            {"keyword": word, "threshold": 0.6, "refractory_s": 0.5} for word in ("low", "mid", "high")
        ],
        "step_s": 0.02,
        "receptive_field_s": 0.07,
        "request_id": "",
    }
    for line, (start_s, word) in zip(found, WORDS, strict=True):
        assert list(line) == ["type", "source", "keyword", "confidence", "start_s", "end_s", "id"]
        assert (line["type"], line["source"], line["keyword"]) == ("detection", str(recording), word)
        assert line["start_s"] == pytest.approx(start_s, abs=0.1)
        assert line["start_s"] < line["end_s"]
        assert 0.6 < line["confidence"] <= 1
    assert list(ended) == ["type", "source", "audio_s", "detections", "elapsed_s", "interrupted", "speed"]
    assert (ended["type"], ended["audio_s"], ended["detections"]) == ("ended", 4.0, 3)
    assert ended["interrupted"] is False


def test_the_pace_changes_nothing_but_the_time(address: str, recording: Path) -> None:
    fast = json_lines(earmark("spot", recording, "--server", address, "--json").stdout)
    paced = json_lines(earmark("spot", recording, "--server", address, "--json", "--pace").stdout)
    assert paced[1:-1] == fast[1:-1]
    assert paced[-1]["elapsed_s"] == pytest.approx(SECONDS, abs=1.0)
    assert fast[-1]["elapsed_s"] < 2.0


@pytest.mark.parametrize("suffix", ["flac", "ogg", "mp3"])
def test_other_containers_rates_and_channels_are_marked_the_same(
    address: str, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"words.{suffix}"
    samples = tiny_model.recording(WORDS, SECONDS, rate_hz=44_100)
    soundfile.write(path, np.stack([samples, samples], axis=1), 44_100)
    done = earmark("spot", path, "--server", address, "--json")
    assert [line["keyword"] for line in json_lines(done.stdout)[1:-1]] == ["low", "mid", "high"]


def test_raw_samples_come_on_standard_input(address: str) -> None:
    stereo_float = np.repeat(tiny_model.recording(WORDS, SECONDS, rate_hz=48_000), 2).astype("<f4")
    for data, form in [
        (samples().tobytes(), []),
        (stereo_float.tobytes(), ["--rate", "48000", "--encoding", "float32", "--channels", "2"]),
    ]:
        done = earmark("spot", "-", "--server", address, "--json", *form, stdin=data)
        *_, ended = lines = json_lines(done.stdout)
        assert [line["keyword"] for line in lines[1:-1]] == ["low", "mid", "high"]
        assert (ended["source"], ended["audio_s"]) == ("-", 4.0)


def test_keywords_are_chosen(address: str, recording: Path) -> None:
    done = earmark(
        "spot", recording, "--server", address, "--json", "--keyword", "mid", "--keyword", "high=0.75"
    )
    started, *found, _ = json_lines(done.stdout)
    assert {one["keyword"]: one["threshold"] for one in started["keywords"]} == {"mid": 0.6, "high": 0.75}
    assert [line["keyword"] for line in found] == ["mid", "high"]


def test_one_threshold_counts_for_every_keyword_without_its_own(address: str, recording: Path) -> None:
    for chosen, expected in [
        ([], {"low": 0.9, "mid": 0.9, "high": 0.9}),
        (["--keyword", "mid", "--keyword", "high=0.75"], {"mid": 0.9, "high": 0.75}),
    ]:
        done = earmark("spot", recording, "--server", address, "--json", "--threshold", "0.9", *chosen)
        started, *_ = json_lines(done.stdout)
        assert {one["keyword"]: one["threshold"] for one in started["keywords"]} == expected


def test_one_bad_recording_does_not_keep_the_others_from_being_marked(
    address: str, recording: Path, tmp_path: Path
) -> None:
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
    assert list(lines[0]) == ["type", "source", "message", "status", "reason"]
    assert (lines[0]["type"], lines[0]["source"]) == ("error", str(text))
    assert lines[-1]["type"] == "ended"


@pytest.mark.parametrize("command", ["spot", "classify"])
def test_a_file_that_is_no_recording_is_said(address: str, tmp_path: Path, command: str) -> None:
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
        (b"RIFF" + bytes(1000), "WAV"),
    ],
)
def test_bad_raw_samples_are_said(address: str, data: bytes, sentence: str) -> None:
    done = earmark("spot", "-", "--server", address, stdin=data)
    assert done.returncode == 1
    assert sentence in done.stderr


def test_nan_in_raw_floats_is_said_by_the_server(address: str) -> None:
    data = np.array([0.0, np.nan], "<f4").tobytes()
    done = earmark("spot", "-", "--encoding", "float32", "--server", address, stdin=data)
    assert done.returncode == 1
    assert re.search("NaN|finite", done.stderr)


def test_an_unknown_keyword_or_model_is_said_by_the_server(address: str, recording: Path) -> None:
    done = earmark("spot", recording, "--keyword", "hello", "--server", address)
    assert (done.returncode, done.stdout) == (1, "")
    assert "hello" in done.stderr
    done = earmark("spot", recording, "--model", "other", "--server", address)
    assert (done.returncode, done.stdout) == (1, "")
    assert "other" in done.stderr


@pytest.mark.parametrize(
    "args",
    [["spot", "{recording}"], ["classify", "{recording}"], ["models"], ["health"], ["health", "--watch"]],
)
def test_a_server_that_is_not_there_is_said_fast(recording: Path, args: list[str]) -> None:
    filled = [arg.format(recording=recording) for arg in args]
    done = earmark_process(*filled, "--server", "127.0.0.1:1")
    assert (done.returncode, done.stdout) == (1, "")
    assert "127.0.0.1:1" in done.stderr
    assert "earmark-server" in done.stderr


def test_the_server_may_be_named_by_the_environment(address: str) -> None:
    assert earmark("health", EARMARK_SERVER=address).stdout == f"{address}: SERVING\n"
    assert earmark("health", "--server", address, EARMARK_SERVER="127.0.0.1:1").returncode == 0
    assert earmark("health", EARMARK_SERVER="no address").returncode == 2


def test_clips_are_named(address: str, tmp_path: Path) -> None:
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
        *("type", "source", "label", "scores", "audio_s", "processing_s", "model", "model_version")
    ]
    assert (line["type"], line["label"], len(line["scores"])) == ("classification", "low", 2)


def test_models_are_listed(address: str) -> None:
    done = earmark("models", "--server", address)
    assert done.returncode == 0
    assert done.stdout.startswith("tiny 1.0.0 (default)\n")
    assert "low (0.60), mid (0.60), high (0.60)" in done.stdout
    (line,) = json_lines(earmark("models", "--server", address, "--json").stdout)
    assert list(line) == [
        *("type", "name", "version", "default", "keywords", "labels", "sample_rate_hz", "step_s"),
        *("receptive_field_s", "metrics", "training_sources", "training_commit", "sha256"),
    ]


def test_health_is_said_for_programs_too(address: str) -> None:
    done = earmark("health", "--server", address, "--json")
    assert json_lines(done.stdout) == [{"type": "health", "server": address, "status": "SERVING"}]
