from __future__ import annotations

import errno
import os
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile
from earmark_training.keyword.pipeline import KeywordRequest, create_model
from earmark_training.keyword.recordings import RecordingsError, read_recordings
from support.synthetic_words import BANANA, COMPUTER, RATE, say, write_recordings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def twelve(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recordings(tmp_path_factory.mktemp("twelve"), COMPUTER, 12)


@pytest.fixture
def folder(twelve: Path, tmp_path: Path) -> Path:
    """Return a folder of 12 recordings that a test may change."""
    return shutil.copytree(twelve, tmp_path / "computer")


def test_good_recordings_are_read_with_the_place_of_the_word(folder: Path):
    recordings, rejected = read_recordings(folder)
    assert len(recordings) == 12
    assert not rejected
    for recording in recordings:
        start, end = recording.word
        assert 0.3 < (end - start) / RATE < 0.75
        assert np.abs(recording.samples[start:end]).max() == np.abs(recording.samples).max()


def test_any_sample_rate_and_number_of_channels_is_read(folder: Path):
    (folder / "00.wav").unlink()
    samples = np.repeat(say(COMPUTER, 0, 0), 3)  # 48 kHz
    soundfile.write(folder / "stereo.flac", np.stack((samples, samples), axis=1), 48_000)
    recordings, _ = read_recordings(folder)
    (stereo,) = (r for r in recordings if r.path.name == "stereo.flac")
    assert stereo.samples.shape == (len(samples) // 3,)


def test_a_named_pipe_is_passed_over(folder: Path):
    os.mkfifo(folder / "live.wav")
    recordings, rejected = read_recordings(folder)
    assert (len(recordings), rejected) == (12, [])


def test_a_missing_or_empty_folder_is_named(tmp_path: Path):
    with pytest.raises(RecordingsError, match=r"nowhere is not a folder: name the folder"):
        read_recordings(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("to do")
    message = "contains no recordings: put one WAV or FLAC file per utterance"
    with pytest.raises(RecordingsError, match=message):
        read_recordings(tmp_path)


def test_the_message_for_too_few_recordings_has_their_number_and_the_needed_one(folder: Path):
    for path in sorted(folder.glob("*.wav"))[5:]:
        path.unlink()
    message = r"contains 5 usable recordings, at least 8 .* \(100 or more"
    with pytest.raises(RecordingsError, match=message):
        read_recordings(folder)


def write_text(path: Path) -> None:
    path.write_text("no audio")


def write_silence(path: Path) -> None:
    soundfile.write(path, np.zeros(RATE, np.float32), RATE)


def write_clipped(path: Path) -> None:
    samples, _ = soundfile.read(path)
    soundfile.write(path, np.clip(10 * samples, -1, 1), RATE)


def write_long(path: Path) -> None:
    soundfile.write(path, np.tile(say(COMPUTER, 3, 3), 8), RATE)


def write_short(path: Path) -> None:
    soundfile.write(path, say(COMPUTER, 3, 3)[: RATE // 5], RATE)


def write_noise(path: Path) -> None:
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(RATE), RATE)


@pytest.mark.parametrize(
    ("reason", "write"),
    [
        ("text file", write_text),
        ("silent", write_silence),
        ("clipped", write_clipped),
        ("cut it into pieces", write_long),
        ("too short", write_short),
        ("no word stands out", write_noise),
    ],
)
def test_a_bad_recording_is_left_out_and_many_are_an_error(
    folder: Path, reason: str, write: Callable[[Path], None]
):
    write(folder / "03.wav")
    recordings, (rejected,) = read_recordings(folder)
    assert len(recordings) == 11
    assert rejected.path.name == "03.wav"
    assert reason in rejected.reason
    for name in ("04.wav", "05.wav"):
        write(folder / name)
    with pytest.raises(RecordingsError, match=f"3 of 12 recordings .*(?s:.*)03.wav: .*{reason}"):
        read_recordings(folder)


def test_every_format_is_read_and_a_truncated_recording_is_rejected(folder: Path):
    samples, rate_hz = soundfile.read(folder / "01.wav", dtype="float32")
    for name in ("more.flac", "more.aiff", "more.mp3", "more.caf"):
        soundfile.write(folder / name, np.roll(samples, len(name) + ord(name[-1])), rate_hz)
    unknown = bytearray((folder / "more.flac").read_bytes())
    unknown[21] &= 0xF0
    unknown[22:26] = bytes(4)  # a FLAC file that states no length, as a pipe gives it
    (folder / "more.flac").write_bytes(unknown)
    soundfile.write(folder / "cut.flac", samples, rate_hz)
    data = (folder / "cut.flac").read_bytes()
    (folder / "cut.flac").write_bytes(data[: len(data) // 2])
    recordings, (rejected,) = read_recordings(folder)
    assert {r.path.name for r in recordings} >= {"more.flac", "more.aiff", "more.mp3", "more.caf"}
    assert rejected.path.name == "cut.flac"
    assert "truncated" in rejected.reason or "damaged" in rejected.reason


def test_files_and_folders_that_cannot_be_read_are_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    (folder / "dangling.wav").symlink_to("absent.wav")
    (folder / "private").mkdir()
    scan = os.scandir

    def scan_others(path: str) -> Iterator[os.DirEntry[str]]:
        if path == str(folder / "private"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", scan_others)
    recordings, (dangling,) = read_recordings(folder)
    assert (len(recordings), dangling.reason) == (12, "no such file or directory")
    assert caplog.messages == [f"{folder}/private cannot be read, and is left out: Permission denied"]


def test_keywords_do_not_share_recordings(twelve: Path, tmp_path: Path):
    folders = {"computer": twelve, "banana": write_recordings(tmp_path / "banana", BANANA, 9)}
    shutil.copy(twelve / "03.wav", folders["banana"] / "copy.wav")
    request = KeywordRequest(dict(folders), tmp_path / "a.onnx")
    with pytest.raises(RecordingsError) as raised:
        create_model(request)
    assert "recordings that are those of two keywords: 1; leave each in the folder of the word" in str(
        raised.value
    )
    assert f"copy.wav: as one of 'banana', it is the same recording as {twelve}/03.wav of 'computer'" in str(
        raised.value
    )


def test_unreadable_formats_and_copies_are_rejected(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("earmark_audio.folder.is_available", lambda *, programs: False)
    (folder / "memo.m4a").write_bytes(b"\0")
    (folder / "._01.wav").write_bytes(b"\0")  # as macOS leaves them: hidden, so passed over
    shutil.copy(folder / "01.wav", folder / "again.wav")
    recordings, rejected = read_recordings(folder)
    assert len(recordings) == 12
    reasons = {r.path.name: r.reason for r in rejected}
    assert reasons["memo.m4a"] == "m4a files need ffmpeg: install it, or convert the file"
    assert reasons["again.wav"] == "it is the same recording as 01.wav"
