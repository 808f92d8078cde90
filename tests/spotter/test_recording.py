from __future__ import annotations

import io
import struct
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile
from earmark_spotter import (
    AudioError,
    Container,
    SampleRateError,
    SpotterError,
    TooLongError,
    read_recording,
)
from hypothesis import given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from pathlib import Path

KINDS = [
    ("WAV", "PCM_16", Container.WAV),
    ("WAV", "FLOAT", Container.WAV),
    ("WAV", "ULAW", Container.WAV),
    ("WAVEX", "PCM_24", Container.WAV),
    ("FLAC", "PCM_16", Container.FLAC),
    ("OGG", "VORBIS", Container.OGG),
    ("OGG", "OPUS", Container.OGG),
]
SAMPLES = (0.3 * np.sin(np.arange(24_000) / 7)).astype(np.float32)


def encoded(kind: str, subtype: str, samples: np.ndarray = SAMPLES, rate_hz: int = 16_000) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate_hz, format=kind, subtype=subtype)
    return buffer.getvalue()


@pytest.mark.parametrize(("kind", "subtype", "container"), KINDS)
def test_every_container_is_read_completely(
    kind: str, subtype: str, container: Container, tmp_path: Path
) -> None:
    data = encoded(kind, subtype)
    samples, rate_hz = read_recording(data)
    assert rate_hz == 16_000
    assert samples.dtype == np.float32
    assert samples.shape == SAMPLES.shape
    np.testing.assert_allclose(samples[2000:-2000], SAMPLES[2000:-2000], atol=0.05)
    np.testing.assert_array_equal(read_recording(data, container=container)[0], samples)
    path = tmp_path / "recording"
    path.write_bytes(data)
    np.testing.assert_array_equal(read_recording(path)[0], samples)
    np.testing.assert_array_equal(read_recording(str(path))[0], samples)


def test_channels_are_mixed_by_their_mean() -> None:
    stereo = np.stack([SAMPLES, np.zeros_like(SAMPLES)], axis=1)
    samples, _ = read_recording(encoded("WAV", "FLOAT", stereo))
    np.testing.assert_allclose(samples, SAMPLES / 2, atol=1e-6)


@pytest.mark.parametrize(("kind", "subtype", "container"), KINDS)
def test_a_container_that_differs_from_the_declared_one_is_rejected(
    kind: str, subtype: str, container: Container
) -> None:
    for stated in set(Container) - {container}:
        with pytest.raises(AudioError, match=f"declares a {stated.value}"):
            read_recording(encoded(kind, subtype), container=stated)


def test_text_renamed_to_wav_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "speech.wav"
    path.write_text("This is no audio at all, however it is called.\n" * 100)
    with pytest.raises(AudioError, match="text file"):
        read_recording(path)
    with pytest.raises(AudioError, match="text file"):
        read_recording(path.read_bytes())


@pytest.mark.parametrize(
    "data", [b"RIFF", b"RIFF\0\0\0\0WAVE", b"RIFF\0\0\0\0AVI ", b"fLaC", b"OggS", b"\xff\xfb\x90\x00" * 100]
)
def test_a_file_that_only_begins_like_audio_is_rejected(data: bytes) -> None:
    with pytest.raises(AudioError):
        read_recording(data)


def test_an_empty_recording_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="empty"):
        read_recording(b"")
    with pytest.raises(AudioError, match="empty"):
        read_recording(encoded("WAV", "PCM_16", np.zeros(0, np.float32)))
    path = tmp_path / "empty.wav"
    path.touch()
    with pytest.raises(AudioError, match="empty"):
        read_recording(path)


def test_a_missing_file_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="cannot be read"):
        read_recording(tmp_path / "nowhere.wav")


@pytest.mark.parametrize(("kind", "subtype", "container"), KINDS)
@pytest.mark.parametrize("kept", [0.05, 0.3, 0.5, 0.9, 0.999])
def test_a_truncated_recording_is_rejected(
    kind: str, subtype: str, container: Container, kept: float
) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 80_000).astype(np.float32)
    data = encoded(kind, subtype, noise)
    with pytest.raises(AudioError):
        read_recording(data[: int(len(data) * kept)], container=container)


@pytest.mark.parametrize("length", [0xFFFFFFFF, 0x80000000, 0x7FFFFFFF])
def test_a_wav_from_a_pipe_does_not_know_its_length(length: int) -> None:
    data = bytearray(encoded("WAV", "PCM_16"))
    place = data.index(b"data") + 4
    data[4:8] = data[place : place + 4] = struct.pack("<I", length)
    assert read_recording(bytes(data))[0].shape == SAMPLES.shape


def with_declared_length(flac: bytes, samples: int) -> bytes:
    """Rewrite the length in STREAMINFO (RFC 9639, section 8.2): the low 36 bits of bytes 18 to 25."""
    fields = int.from_bytes(flac[18:26], "big") >> 36 << 36 | samples
    return flac[:18] + fields.to_bytes(8, "big") + flac[26:]


def test_a_flac_from_a_pipe_does_not_know_its_length() -> None:
    data = with_declared_length(encoded("FLAC", "PCM_16"), 0)
    assert read_recording(data)[0].shape == SAMPLES.shape


@pytest.mark.parametrize(("kind", "subtype", "container"), KINDS)
def test_a_recording_beyond_the_limit_is_rejected(kind: str, subtype: str, container: Container) -> None:
    data = encoded(kind, subtype)
    assert len(read_recording(data, max_seconds=1.5, container=container)[0]) == 24_000
    with pytest.raises(TooLongError, match=r"1\.5 s"):
        read_recording(data, max_seconds=1.49, container=container)


def test_the_limit_applies_to_the_decoded_audio_whatever_is_declared() -> None:
    # A minute of silence is less than 10 kB of FLAC: without a bound, a small message fills the memory.
    minute = with_declared_length(encoded("FLAC", "PCM_16", np.zeros(60 * 16_000, np.float32)), 0)
    assert len(minute) < 10_000
    with pytest.raises(TooLongError) as caught:
        read_recording(minute, max_seconds=5)
    assert "5.1 s" in str(caught.value)  # it stopped at the first block beyond the limit
    assert caught.value.reason == "MESSAGE_TOO_LARGE"


def test_dense_recordings_have_a_shorter_limit() -> None:
    # Half a megabyte of FLAC holds 300 s of eight silent channels at 192 kHz: two gigabytes of floats.
    silence = np.zeros((2 * 96_000, 8), np.float32)
    dense = encoded("FLAC", "PCM_16", silence, 96_000)  # eight times as many as stereo at 48 kHz
    assert len(read_recording(dense, max_seconds=16)[0]) == 2 * 96_000
    for data in (dense, with_declared_length(dense, 0)):
        with pytest.raises(TooLongError, match=r"at most 1\.5 s at this sample rate"):
            read_recording(data, max_seconds=12)


def test_a_declared_length_beyond_the_limit_is_rejected_before_decoding() -> None:
    with pytest.raises(TooLongError, match=r"4294967\.3 s"):
        read_recording(with_declared_length(encoded("FLAC", "PCM_16"), (1 << 36) - 1), max_seconds=3600)


def test_a_declared_length_beyond_the_content_is_rejected() -> None:
    with pytest.raises(AudioError, match="truncated"):
        read_recording(with_declared_length(encoded("FLAC", "PCM_16"), 48_000))


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1000.0])
def test_float_wavs_with_invalid_samples_are_rejected(bad: float) -> None:
    samples = SAMPLES.copy()
    samples[20_000] = bad
    with pytest.raises(AudioError, match="full scale"):
        read_recording(encoded("WAV", "FLOAT", samples))


@pytest.mark.parametrize("rate_hz", [4000, 384_000])
def test_an_unsupported_sample_rate_is_rejected(rate_hz: int) -> None:
    with pytest.raises(SampleRateError):
        read_recording(encoded("WAV", "PCM_16", rate_hz=rate_hz))


def test_too_many_channels_are_rejected() -> None:
    with pytest.raises(AudioError, match="9 channels"):
        read_recording(encoded("WAV", "PCM_16", np.zeros((1000, 9), np.float32)))


ENCODED = [encoded(kind, subtype, SAMPLES[:4000]) for kind, subtype, _ in KINDS]


@given(
    data=st.sampled_from(ENCODED),
    damage=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=12),
    near_start=st.booleans(),
)
def test_a_damaged_file_is_rejected_or_decodes_to_valid_samples(
    data: bytes, damage: list[tuple[float, int]], near_start: bool
) -> None:
    damaged = bytearray(data)
    reach = min(len(data), 80) if near_start else len(data)
    for place, value in damage:
        damaged[min(reach - 1, int(place * reach))] = value
    try:
        samples, rate_hz = read_recording(bytes(damaged), max_seconds=10)
    except SpotterError:
        return
    assert np.isfinite(samples).all()
    assert 0 < len(samples) <= 10 * rate_hz
