"""`--clips` and `--then-record`: the audio around a detection, and after it."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile
from earmark_cli.actions.after_detection import AfterDetection
from earmark_cli.actions.clip_folder import ClipFolder
from earmark_client import AudioClip, Detection
from earmark_client.audio import AudioFormat
from support.deadlines import DEADLINE_S
from support.earmark_command import RATE_HZ, earmark, environment, json_lines, running, samples

if TYPE_CHECKING:
    from pathlib import Path


def wavs(folder: Path) -> list[Path]:
    """Return the WAV files; beside each one is a JSON file, and nothing else."""
    paths = sorted(folder.glob("*.wav"), key=lambda path: float(path.stem.split("-")[2]))
    assert {path.name for path in folder.iterdir()} == {
        path.with_suffix(suffix).name for path in paths for suffix in (".wav", ".json")
    }
    return paths


def test_clips_have_the_audio_around_each_detection(address: str, recording: Path, tmp_path: Path) -> None:
    folder = tmp_path / "some/clips"
    done = earmark("spot", recording, "--server", address, "--json", "--clips", folder)
    assert (done.returncode, done.stderr) == (0, "")
    _, *detections, _ = json_lines(done.stdout)
    paths = wavs(folder)
    assert len(paths) == 3
    for path, detection in zip(paths, detections, strict=True):
        (line,) = path.with_suffix(".json").read_text().splitlines()
        clip = json.loads(line)
        assert clip["type"] == "clip"
        assert clip["file"] == path.name
        assert clip["source"] == str(recording)
        assert clip["start_s"] == pytest.approx(detection["start_s"], abs=1e-4)
        assert {name: clip[name] for name in ("keyword", "id")} == {
            name: detection[name] for name in ("keyword", "id")
        }
        read, rate_hz = soundfile.read(path, dtype="int16")
        first = round(clip["clip_start_s"] * RATE_HZ)
        assert rate_hz == RATE_HZ
        assert clip["clip_start_s"] == pytest.approx(max(0, detection["start_s"] - 1.5), abs=1e-3)
        assert clip["clip_end_s"] >= detection["end_s"]
        assert (read == samples()[first : first + len(read)]).all()
        assert len(read) == round((clip["clip_end_s"] - clip["clip_start_s"]) * RATE_HZ)


def test_runs_do_not_overwrite_each_other(address: str, recording: Path, tmp_path: Path) -> None:
    for _ in range(2):
        done = earmark("spot", recording, "--server", address, "--clips", tmp_path / "clips")
        assert done.returncode == 0
    assert len(wavs(tmp_path / "clips")) == 6


def test_then_record_has_exactly_the_audio_after_each_detection(
    address: str, recording: Path, tmp_path: Path
) -> None:
    done = earmark(
        "spot", recording, "--server", address, "--json", "--then-record", "0.75", tmp_path / "next"
    )
    assert (done.returncode, done.stderr) == (0, "")
    _, *detections, _ = json_lines(done.stdout)
    for path, detection in zip(wavs(tmp_path / "next"), detections, strict=True):
        read, _ = soundfile.read(path, dtype="int16")
        clip = json.loads(path.with_suffix(".json").read_text())
        first = round(clip["clip_start_s"] * RATE_HZ)
        assert clip["clip_start_s"] == pytest.approx(detection["end_s"], abs=1e-4)
        assert len(read) == min(round(0.75 * RATE_HZ), len(samples()) - first)
        assert (read == samples()[first : first + len(read)]).all()


def test_the_audio_after_a_detection_is_kept_however_far_the_source_is_read_ahead(tmp_path: Path) -> None:
    """With `--resume-within 3600` an hour is read while the stream is broken."""
    recorder = AfterDetection(ClipFolder(tmp_path), 5.0, "source", AudioFormat(RATE_HZ))
    block = np.arange(RATE_HZ, dtype="<i2").tobytes()
    for _ in recorder.record(itertools.repeat(block, 400)):
        pass
    recorder.discard_before(9.5)
    path = recorder.add(Detection("word", 1.0, 9.5, 10.0, "id"))
    assert soundfile.read(path, dtype="int16")[0].tobytes() == 5 * block
    # What is decided is not kept.
    recorder.discard_before(300.0)
    late = recorder.add(Detection("word", 1.0, 200.0, 201.0, "id"))
    assert soundfile.info(late).frames == 0


def test_the_command_gets_both_paths(address: str, recording: Path, tmp_path: Path) -> None:
    action = tmp_path / "action"
    action.write_text(
        "#!/bin/sh\n"
        'until [ -e "$EARMARK_RECORDING" ]; do sleep 0.05; done\n'
        'cat "$EARMARK_CLIP" "$EARMARK_RECORDING" | wc -c\n'
    )
    action.chmod(0o755)
    options = ["--clips", tmp_path / "clips", "--then-record", "0.5", tmp_path / "next"]
    done = earmark("spot", recording, "--server", address, "--exec", action, *options)
    sizes = sorted(int(line.rpartition(" ")[2]) for line in done.stderr.splitlines())
    files = [zip(wavs(tmp_path / "clips"), wavs(tmp_path / "next"), strict=True)]
    assert sizes == sorted(a.stat().st_size + b.stat().st_size for pairs in files for a, b in pairs)


def test_a_raw_stream_keeps_its_encoding_and_channels(address: str, tmp_path: Path) -> None:
    both = np.stack([samples(), samples()], axis=1).tobytes()
    done = earmark(
        "spot", "-", "--channels", "2", "--server", address, "--clips", tmp_path / "clips", stdin=both
    )
    assert done.returncode == 0
    assert [soundfile.info(path).channels for path in wavs(tmp_path / "clips")] == [2, 2, 2]


def test_each_channel_has_its_clips(address: str, tmp_path: Path) -> None:
    stereo = tmp_path / "stereo.wav"
    soundfile.write(stereo, np.stack([samples(), samples()], axis=1), RATE_HZ)
    options = ["--channel", "each", "--server", address, "--clips", tmp_path / "clips", "--jobs", "2"]
    assert earmark("spot", stereo, *options).returncode == 0
    names = [path.name.split("-")[1] for path in wavs(tmp_path / "clips")]
    assert sorted(names) == ["stereo_channel_1"] * 3 + ["stereo_channel_2"] * 3


def test_processes_do_not_overwrite_each_others_clips(tmp_path: Path) -> None:
    """A process of `--jobs` has a folder of its own for each recording."""
    folders = [ClipFolder(tmp_path) for _ in range(3)]
    for folder in folders:
        folder._begin = "20260101T000000Z"
    detection = Detection("word", 1.0, 0.5, 1.0, "id")
    paths = [folder.path("a/words.wav", detection) for folder in folders]
    folders[0].write(paths[0], "words.wav", detection, AudioClip(0.0, b"", RATE_HZ))
    paths.append(folders[1].path("b/words.wav", detection))
    assert len(set(paths)) == 4
    for folder, path in zip((*folders[1:], folders[1]), paths[1:], strict=True):
        folder.write(path, "words.wav", detection, AudioClip(0.0, b"", RATE_HZ))
    assert len(wavs(tmp_path)) == 4


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_that_ends_the_command_leaves_no_unfinished_files(
    address: str, tmp_path: Path, number: signal.Signals
) -> None:
    folder = tmp_path / "next"
    with running("spot", "-", "--server", address, "--then-record", "100", folder) as process:
        assert process.stdin is not None
        process.stdin.write(samples().tobytes())  # the pipe stays open
        process.stdin.flush()
        deadline_s = time.monotonic() + DEADLINE_S
        while not list(folder.glob("*.part")):
            assert time.monotonic() < deadline_s
            time.sleep(0.02)
        process.send_signal(number)
        assert process.wait(DEADLINE_S) == -number
    assert wavs(folder) == []


def test_a_released_path_is_not_written(tmp_path: Path) -> None:
    folder = ClipFolder(tmp_path)
    detection = Detection("word", 1.0, 0.5, 1.0, "id")
    path = folder.path("source", detection)
    folder.release()
    folder.write(path, "source", detection, AudioClip(0.0, b"", RATE_HZ))
    assert wavs(tmp_path) == []


def test_a_keyword_cannot_leave_the_folder(tmp_path: Path) -> None:
    folder = ClipFolder(tmp_path / "clips")
    detection = Detection("../../x\n" + "long" * 100, 1.0, 0.5, 1.0, "id")
    path = folder.path("/etc/\x1b[2J..", detection)
    assert path.parent == tmp_path / "clips"
    folder.write(path, "source", detection, AudioClip(0.0, b"", RATE_HZ))
    assert len(wavs(tmp_path / "clips")) == 1


@pytest.mark.parametrize("option", [["--clips"], ["--then-record", "1"]])
def test_a_folder_that_cannot_be_created_is_reported(
    recording: Path, tmp_path: Path, option: list[str]
) -> None:
    (tmp_path / "file").touch()
    done = earmark("spot", recording, *option, tmp_path / "file/clips")
    assert (done.returncode, done.stdout) == (1, "")
    assert "file/clips cannot be created: Not a directory" in done.stderr


def test_a_clip_that_cannot_be_written_does_not_stop_the_stream(
    address: str, recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pathlib import Path as AnyPath

    recording_too = tmp_path / "too.wav"
    recording_too.write_bytes(recording.read_bytes())

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(AnyPath, "write_bytes", fail)
    options = ["--clips", tmp_path / "clips", "--then-record", "10", tmp_path / "next"]
    done = earmark("spot", recording, recording_too, "--server", address, *options)
    assert done.returncode == 0
    assert done.stdout.count("3 detections") == 2
    # Those of --then-record are written at the end of each recording.
    assert done.stderr.count("a file cannot be written: No space left on device") == 12
    assert wavs(tmp_path / "clips") == wavs(tmp_path / "next") == []


def test_a_folder_that_disappears_does_not_stop_the_stream(
    address: str, recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(ClipFolder, "path", fail)
    options = ["--clips", tmp_path / "clips", "--then-record", "0.5", tmp_path / "next"]
    done = earmark("spot", recording, "--server", address, *options)
    assert done.returncode == 0
    assert done.stderr.count("a file cannot be written: No such file or directory") == 6


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "five", "4000"])
def test_a_length_out_of_range_is_rejected(recording: Path, tmp_path: Path, seconds: str) -> None:
    done = earmark("spot", recording, "--then-record", seconds, tmp_path)
    assert done.returncode == 2
    assert "--then-record: " in done.stderr


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no such signals")
def test_a_signal_while_a_path_is_reserved_takes_effect_afterwards(tmp_path: Path) -> None:
    code = f"""
import os, pathlib, signal
from earmark_cli.actions import clip_folder
from earmark_cli.interrupts import before_termination
from earmark_client import Detection

folder = clip_folder.ClipFolder(pathlib.Path({str(tmp_path)!r}))
reserve = clip_folder.reserve

def interrupted(path_of):
    path = reserve(path_of)
    os.kill(os.getpid(), signal.SIGTERM)
    for _ in range(1000):
        pass  # here the handler runs
    return path

clip_folder.reserve = interrupted
with before_termination(folder.release):
    folder.path("a.wav", Detection("low", 0.5, 1.0, 2.0, "id"))
"""
    done = subprocess.run([sys.executable, "-c", code], env=environment(), check=False)
    assert done.returncode == -signal.SIGTERM
    assert list(tmp_path.iterdir()) == []
