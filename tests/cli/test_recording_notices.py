"""Notices about recordings, truncated recordings, and the name of the recording in each message."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile
from support.earmark_command import RATE_HZ, WORDS, earmark, json_lines, samples

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def unfinished(tmp_path: Path) -> Path:
    """Return a WAV file whose sizes were never filled in."""
    path = tmp_path / "unfinished.wav"
    soundfile.write(path, samples(), RATE_HZ, subtype="PCM_16")
    data = bytearray(path.read_bytes())
    data[4:8] = data[40:44] = bytes(4)
    path.write_bytes(data)
    return path


@pytest.fixture
def truncated(tmp_path: Path) -> Path:
    """Return a WAV file of which the last tenth is missing."""
    path = tmp_path / "truncated.wav"
    soundfile.write(path, samples(), RATE_HZ, subtype="PCM_16")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 9 // 10])
    return path


def test_spot_prints_the_notices_of_a_recording(address: str, unfinished: Path) -> None:
    done = earmark("spot", unfinished, "--server", address)
    assert done.returncode == 0
    assert done.stderr.startswith(f"earmark: {unfinished}: ")
    assert "3 detections" in done.stdout
    (warning,) = [
        line
        for line in json_lines(earmark("spot", unfinished, "--server", address, "--json").stdout)
        if line["type"] == "warning"
    ]
    assert warning["source"] == str(unfinished)
    assert warning["reason"]
    assert f"earmark: {unfinished}: {warning['message']}\n" == done.stderr


def test_spot_prints_all_detections_of_a_truncated_recording_before_its_error(
    address: str, truncated: Path
) -> None:
    for _ in range(3):
        done = earmark("spot", truncated, "--server", address, "--json")
        *_, error = lines = json_lines(done.stdout)
        assert done.returncode == 1
        words = [line["keyword"] for line in lines if line["type"] == "detection"]
        assert words == [word for start_s, word in WORDS if start_s < 3]
        assert error["type"] == "error"
        assert done.stderr.count(str(truncated)) == 1


def test_plot_draws_a_truncated_recording_and_fails(address: str, truncated: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    done = earmark("plot", truncated, "-o", out, "--server", address)
    assert done.returncode == 1
    assert out.exists()
    assert f"earmark: {truncated}: " in done.stderr


@pytest.mark.parametrize("command", ["spot", "classify"])
def test_an_unsupported_rate_is_reported_with_the_name_of_the_recording(
    command: str, address: str, tmp_path: Path
) -> None:
    path = tmp_path / "slow.wav"
    soundfile.write(path, samples()[:4000], 4000, subtype="PCM_16")
    done = earmark(command, path, "--server", address)
    assert done.returncode == 1
    assert done.stderr.startswith(f"earmark: {path}: ")
    assert done.stderr.count(str(path)) == 1


def test_one_channel_of_a_recording_is_spotted(address: str, tmp_path: Path) -> None:
    path = tmp_path / "stereo.wav"
    speech = samples()
    soundfile.write(path, np.stack([speech, np.zeros_like(speech)], axis=1), RATE_HZ, subtype="PCM_16")
    counts = []
    for channel in ("1", "2"):
        lines = json_lines(earmark("spot", path, "--channel", channel, "--server", address, "--json").stdout)
        counts += [line["detections"] for line in lines if line["type"] == "ended"]
    assert counts == [3, 0]
    assert earmark("spot", "-", "--channel", "1", "--server", address).returncode == 1


@pytest.mark.parametrize("container", ["FLAC", "OGG"])
def test_a_compressed_recording_is_read_from_a_pipe(container: str, address: str, tmp_path: Path) -> None:
    path = tmp_path / "words"
    soundfile.write(path, samples(), RATE_HZ, format=container)
    done = earmark("spot", "-", "--server", address, stdin=path.read_bytes())
    assert (done.returncode, done.stderr) == (0, "")
    assert "3 detections" in done.stdout
    data = path.read_bytes()
    done = earmark("spot", "-", "--server", address, stdin=data[: len(data) // 2])
    assert done.returncode == 1
    assert done.stderr.startswith("earmark: standard input: ")
    assert "earmark-" not in done.stderr


def test_tune_names_what_it_leaves_out_and_passes_over_hidden_files(
    address: str, recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("earmark_audio.folder.is_available", lambda **_: False)
    for name in (".git", "low", "low/.cache", "talk"):
        (tmp_path / name).mkdir()
    words = recording.read_bytes()
    for name in ("low/one.wav", "low/TWO.WAV", "low/no_suffix", "talk/three.tmp"):
        (tmp_path / name).write_bytes(words)
    for name in ("low/._one.wav", "low/.DS_Store", ".git/a.wav", "low/.cache/b.wav", "low/.notes.txt"):
        (tmp_path / name).write_bytes(b"no recording")
    left_out = {
        "low/raw.pcm": (samples().tobytes(), "its format is unknown"),
        "low/two.m4a": (b"\0\0\0\x20ftypM4A " + bytes(100), "install `ffmpeg`"),
        "low/video": (b"\x1aE\xdf\xa3" + bytes(100), "install `ffmpeg`"),
        "notes.txt": (b"no sound, only words", "it is a text file"),
        "talk/all.zip": (b"PK\x03\x04" + bytes(100), "it is a ZIP archive"),
    }
    for name, (data, _) in left_out.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "talk" / "gone").symlink_to(tmp_path / "absent")
    os.mkfifo(tmp_path / "talk" / "live.wav")
    (tmp_path / "talk" / "endless.wav").symlink_to("/dev/zero")
    done = earmark("tune", tmp_path, "--server", address, "--json")
    assert done.returncode == 0
    lines = sorted(line for line in done.stderr.splitlines() if "left out" in line)
    expected = {name: why for name, (_, why) in left_out.items()} | {
        "talk/gone": "No such file or directory",
        "talk/live.wav": "it is not a regular file",
        "talk/endless.wav": "it is not a regular file",
    }
    assert len(lines) == len(expected)
    for line, (name, why) in zip(lines, sorted(expected.items()), strict=True):
        assert line.startswith(f"earmark: {tmp_path / name}: left out: {why}")
    (low,) = json_lines(done.stdout)
    assert low["recordings"] == 3


def test_a_truncated_flac_is_spotted_plotted_and_classified_to_its_end(address: str, tmp_path: Path) -> None:
    path = tmp_path / "truncated.flac"
    soundfile.write(path, samples(), RATE_HZ)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 9 // 10])
    out = tmp_path / "page.html"
    results = []
    for _ in range(2):
        for arguments in (["spot", "--json", path], ["plot", "-o", out, path], ["classify", path]):
            done = earmark(*arguments, "--server", address)
            assert done.returncode == 1
            (line,) = done.stderr.splitlines()[-1:]
            assert line.lower().startswith(f"earmark: {path}: the recording is truncated: its last ")
        lines = json_lines(earmark("spot", "--json", path, "--server", address).stdout)
        results.append([line["start_s"] for line in lines if line["type"] == "detection"])
    assert len(results[0]) == len(WORDS)
    assert results[0] == results[1]
    assert out.exists()


@pytest.mark.parametrize("command", ["plot", "tune"])
@pytest.mark.parametrize("suffix", ["html", "png"])
def test_an_output_that_cannot_be_written_is_reported_before_the_work(
    tmp_path: Path, recording: Path, command: str, suffix: str
) -> None:
    (tmp_path / "low").mkdir()
    (tmp_path / "low" / "one.wav").write_bytes(recording.read_bytes())
    (tmp_path / f"folder.{suffix}").mkdir()
    source = recording if command == "plot" else tmp_path
    for out in (tmp_path / "absent" / f"o.{suffix}", f"/proc/o.{suffix}", tmp_path / f"folder.{suffix}"):
        done = earmark(command, source, "-o", out, "--server", "127.0.0.1:9")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"earmark: {out} cannot be written: ")


@pytest.mark.parametrize("command", ["plot", "tune"])
def test_an_output_is_left_as_it_was_when_the_work_fails(tmp_path: Path, command: str) -> None:
    kept, made = tmp_path / "kept.html", tmp_path / "new.html"
    kept.write_text("before")
    for out in (kept, made):
        assert earmark(command, tmp_path / "absent", "-o", out).returncode == 1
    assert kept.read_text() == "before"
    assert not made.exists()
