"""Notices about recordings, truncated recordings, and the name of the recording in each message."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile
from earmark_cli.tune import command
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
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "ffmpeg_is_available", lambda **_: False)
    for name in ("one.wav", "._one.wav", "two.m4a", "notes.txt"):
        (tmp_path / name).touch()
    assert command._find_recordings(tmp_path) == [tmp_path / "one.wav"]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"earmark: {tmp_path / 'two.m4a'}: left out: ")
