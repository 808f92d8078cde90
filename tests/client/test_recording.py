from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile
from earmark_client import Recording, RecordingError

if TYPE_CHECKING:
    from pathlib import Path


def _tone(seconds: float, rate_hz: int = 16_000) -> np.ndarray:
    return (0.3 * np.sin(np.arange(round(seconds * rate_hz)) * 0.2)).astype(np.float32)


def _read(path: Path, **settings: float) -> np.ndarray:
    with Recording(path, **settings) as recording:
        return np.frombuffer(b"".join(recording), "<i2")


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_a_16_bit_recording_is_read_losslessly_in_blocks_of_any_length(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"tone.{suffix}"
    written = (_tone(1.23) * 32767).astype(np.int16)
    soundfile.write(path, written, 16_000)
    for block_s in (1.0, 0.1, 1 / 16_000 * 777):
        assert np.array_equal(_read(path, block_s=block_s), written)


@pytest.mark.parametrize("suffix", ["ogg", "mp3"])
def test_a_compressed_recording_keeps_its_sample_rate(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"tone.{suffix}"
    soundfile.write(path, _tone(2.0, 44_100), 44_100)
    with Recording(path) as recording:
        assert recording.sample_rate_hz == 44_100
    assert len(_read(path)) == pytest.approx(2 * 44_100, rel=0.05)


def test_channels_are_averaged(tmp_path: Path) -> None:
    path = tmp_path / "stereo.wav"
    soundfile.write(path, np.array([[1000, 3000], [-2000, 0]], dtype=np.int16), 16_000)
    assert _read(path).tolist() == [2000, -1000]


def test_a_long_recording_is_read_in_blocks(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    soundfile.write(path, np.zeros(16_000 * 60, np.int16), 16_000)
    with Recording(path, block_s=0.5) as recording:
        assert {len(block) for block in recording} == {16_000}


def test_an_unreadable_recording_is_reported_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("not a sound\n" * 100)
    (tmp_path / "text.raw").write_text("not a sound\n" * 100)
    soundfile.write(tmp_path / "nothing.wav", np.zeros(0), 16_000)
    soundfile.write(tmp_path / "nan.wav", np.array([0.0, np.nan]), 16_000, subtype="FLOAT")
    for name, sentence in {
        "absent.wav": "No such file",
        "": "Is a directory",
        "empty.wav": "the recording is empty",
        "text.wav": "this is a text file: give a recording",
        "text.raw": "this is a text file: give a recording",
        "nothing.wav": "contains no samples",
        "nan.wav": "must be finite",
    }.items():
        with pytest.raises(RecordingError, match=sentence) as rejected:
            _read(tmp_path / name)
        assert str(tmp_path / name) in str(rejected.value)


def test_a_recording_with_a_damaged_middle_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "damaged.flac"
    noise = np.random.default_rng(0).normal(0, 0.1, 160_000)
    soundfile.write(path, noise, 16_000)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    path.write_bytes(data)
    with pytest.raises(RecordingError, match="damaged"):
        _read(path)


def test_closing_a_recording_ends_its_iterator(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    soundfile.write(path, np.zeros(160_000, np.int16), 16_000)
    recording = Recording(path, block_s=0.1)
    blocks = iter(recording)
    next(blocks)
    recording.close()
    assert list(blocks) == []


def test_a_second_iterator_of_a_recording_says_that_it_was_read(tmp_path: Path) -> None:
    path = tmp_path / "short.wav"
    soundfile.write(path, np.zeros(16_000, np.int16), 16_000)
    with Recording(path, block_s=0.1) as recording:
        next(iter(recording))  # a part of it would be missing from the second one
        with pytest.raises(RecordingError, match=r"short\.wav: a Recording can be read only once: open"):
            list(recording)


def test_a_web_address_is_not_a_file() -> None:
    with pytest.raises(RecordingError, match=r"^http://host/a\.wav: this is a web address: download"):
        Recording("http://host/a.wav")
