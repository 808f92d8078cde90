"""The reader of recordings: every format, whole, cut off, joined, and with wrong lengths in the header."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile
from earmark_audio import AudioFileError, IncompleteError, Pipe, RecordingFile, matroska, mp4, video
from earmark_audio.file_view import FileView
from earmark_audio.recording_parts import Layout, Part
from hypothesis import given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

RATE_HZ = 16_000
TONE = (0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE_HZ) / RATE_HZ)).astype(np.float32)

NOISE = (0.1 * np.random.default_rng(0).standard_normal(4 * RATE_HZ)).astype(np.float32)

# libsndfile's container and subtype; how many samples a decoder may add or lose at the ends.
WRITTEN = [
    ("WAV", "PCM_16", 0),
    ("WAV", "PCM_24", 0),
    ("WAV", "FLOAT", 0),
    ("WAV", "ULAW", 0),
    ("WAV", "IMA_ADPCM", 1024),
    ("WAVEX", "PCM_16", 0),
    ("RF64", "PCM_16", 0),
    ("W64", "PCM_16", 0),
    ("AIFF", "PCM_16", 0),
    ("AU", "PCM_16", 0),
    ("CAF", "PCM_16", 0),
    ("FLAC", "PCM_16", 0),
    ("OGG", "VORBIS", 0),
    ("OGG", "OPUS", 0),
    ("MP3", "MPEG_LAYER_III", 2400),
]
IDS = [f"{container} {codec}" for container, codec, _ in WRITTEN]


def _write(container: str, codec: str, samples: np.ndarray = TONE, rate_hz: int = RATE_HZ) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate_hz, format=container, subtype=codec)
    return file.getvalue()


def _written_by_ffmpeg(
    path: Path, samples: np.ndarray, *options: str, of_input: tuple[str, ...] = ()
) -> Path:
    """Write samples with ffmpeg and these options, and return the path; skip the test without ffmpeg."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("no ffmpeg to write the file with")
    source = path.with_name("source.wav")
    soundfile.write(source, samples, RATE_HZ)
    command = ["ffmpeg", "-loglevel", "quiet", *of_input, "-i", source, *options, path]
    subprocess.run(command, check=True)
    return path


@pytest.fixture(params=[True, False], ids=["PyAV", "ffmpeg"])
def either_ffmpeg(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decode with the package PyAV, and once more with the program."""
    monkeypatch.setattr("earmark_audio.ffmpeg.has_package", lambda: request.param)


def _read(source: Any) -> tuple[np.ndarray, str, list[str]]:
    """Return the samples of the first channel, the error at the end, and the notices."""
    blocks, error = [np.zeros(0, np.float32)], ""
    with RecordingFile(source) as recording:
        try:
            blocks.extend(block[:, 0] for block in recording.blocks())
        except IncompleteError as at_the_end:
            error = str(at_the_end)
        return np.concatenate(blocks), error, [notice.message for notice in recording.notices]


@pytest.mark.parametrize(("container", "codec", "tolerance"), WRITTEN, ids=IDS)
def test_every_format_is_read_whole(container: str, codec: str, tolerance: int) -> None:
    samples, error, notices = _read(_write(container, codec))
    assert abs(len(samples) - len(TONE)) <= tolerance
    assert (error, notices) == ("", [])
    assert np.sqrt(np.mean(samples**2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.1)


@pytest.mark.parametrize(("container", "codec", "tolerance"), WRITTEN, ids=IDS)
def test_a_file_that_is_cut_off_gives_all_that_came_and_then_an_error(
    container: str, codec: str, tolerance: int
) -> None:
    data = _write(container, codec, NOISE)
    cut = data[: int(len(data) * 0.75)]
    first, error, notices = _read(cut)
    assert 1.9 * RATE_HZ < len(first) <= 3.2 * RATE_HZ + tolerance
    assert error or notices, "the loss is reported"
    again, *_ = _read(cut)
    assert np.array_equal(first, again)


@pytest.mark.parametrize(
    "container", ["WAV", "RF64", "W64", "CAF", "AU", "FLAC", "OGG OPUS", "OGG VORBIS", "MP3", "AIFF"]
)
def test_joined_files_are_read_to_the_end(container: str) -> None:
    name, _, codec = container.partition(" ")
    codecs = {"FLAC": "PCM_16", "MP3": "MPEG_LAYER_III"}
    one = _write(name, codec or codecs.get(name, "PCM_16"))
    samples, error, _ = _read(one + one)
    once, *_ = _read(one)
    assert (len(samples), error) == (2 * len(once), "")


def test_a_joined_file_of_another_rate_is_reported() -> None:
    samples, error, _ = _read(_write("FLAC", "PCM_16") + _write("FLAC", "PCM_16", rate_hz=8000))
    assert len(samples) == RATE_HZ
    assert "8000 Hz" in error


@pytest.mark.parametrize("sizes", [(0, 0), (0xFFFFFFFF, 0xFFFFFFFF), (0x7FFFFFFF, 0x7FFFFFDB), (36, 0)])
def test_a_wav_whose_lengths_were_never_filled_in_is_read(sizes: tuple[int, int]) -> None:
    data = bytearray(_write("WAV", "PCM_16"))
    data[4:8], data[40:44] = (size.to_bytes(4, "little") for size in sizes)
    samples, error, notices = _read(bytes(data))
    assert (len(samples), error) == (RATE_HZ, "")
    assert ("never finished" in " ".join(notices)) == (sizes[1] == 0)


def _id3(content_bytes: int) -> bytes:
    size = bytes(content_bytes >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\4\0\0" + size + bytes(content_bytes)


def _states_too_little(container: str, codec: str, share: int) -> bytes:
    data = bytearray(_write(container, codec, NOISE))
    order: Any = "big" if container in ("AIFF", "CAF", "AU") else "little"
    name = {"AIFF": b"SSND", "AU": data[4:8]}.get(container, b"data")
    at, size = data.index(name) + 4, 4
    if container == "RF64":
        at, size = data.index(b"ds64") + 16, 8
    elif container in ("W64", "CAF"):
        at, size = at + (12 if container == "W64" else 0), 8
    stated = int.from_bytes(data[at : at + size], order)
    data[at : at + size] = (stated * share // 100).to_bytes(size, order)
    return bytes(data)


@pytest.mark.parametrize("share", [0, 1, 50, 99])
@pytest.mark.parametrize(
    ("container", "codec"),
    [
        ("WAV", "PCM_16"),
        ("WAV", "PCM_24"),
        ("WAV", "ULAW"),
        ("RF64", "PCM_16"),
        ("AIFF", "PCM_16"),
        ("W64", "PCM_16"),
        ("CAF", "PCM_16"),
        ("AU", "PCM_16"),
    ],
)
@pytest.mark.parametrize("joined", [1, 2])
def test_audio_that_goes_on_after_its_stated_length_is_read(
    container: str, codec: str, share: int, joined: int
) -> None:
    """The length of the whole file is right, and that of the samples is not."""
    if container in ("W64", "CAF", "AU") and (not share or (container != "W64" and joined > 1)):
        pytest.skip("CAF and AU state no length of the whole; without samples the header is unfinished")
    data = _states_too_little(container, codec, share) * joined
    for source in (data, Pipe(io.BytesIO(data))):
        samples, error, notices = _read(source)
        assert (len(samples), error) == (joined * len(NOISE), "")
        assert notices == ["The recording is longer than its header states; it was read to its end."]


CHUNKS = {
    "LIST": b"LIST" + (400).to_bytes(4, "little") + b"INFO" + b"x" * 396,
    "truncated LIST": b"LIST" + (40_000).to_bytes(4, "little") + b"INFO" + b"x" * 396,
    "id3 behind padding": bytes(500) + b"id3 " + (300).to_bytes(4, "little") + b"\1" * 300,
    "an unknown one": b"wEiR" + (301).to_bytes(4, "little") + b"\1" * 302,
    "bare ID3": _id3(0) + b"\1" * 400,
    "ID3v1": b"TAG" + b"a" * 300,
    "padding": bytes(100_000),
    "few bytes": b"\1" * 100,
}


@pytest.mark.parametrize("chunk", CHUNKS.values(), ids=CHUNKS)
@pytest.mark.parametrize("length", [len(NOISE), len(NOISE) - 1])
def test_chunks_after_the_samples_of_a_wav_are_not_read_as_audio(chunk: bytes, length: int) -> None:
    data = _write("WAV", "PCM_U8", NOISE[:length]).removesuffix(b"\0")
    data += bytes(length % 2)
    data = data[:4] + (len(data) + len(chunk) - 8).to_bytes(4, "little") + data[8:] + chunk
    for source in (data, Pipe(io.BytesIO(data))):
        samples, error, notices = _read(source)
        assert (len(samples), error, notices) == (length, "", [])


@pytest.mark.parametrize("joined", [1, 2])
@pytest.mark.parametrize("container", ["W64", "CAF"])
def test_chunks_after_the_samples_of_wave64_and_caf_are_not_read_as_audio(
    container: str, joined: int
) -> None:
    data = _write(container, "PCM_16", NOISE)
    if container == "W64":  # levels, as Sound Forge writes them
        data += bytes(-len(data) % 8) + b"levl\xf3\xac\xd3\x11\x8c\xd1\0\xc0\x4f\x8e\xdb\x8a"
        data += (424).to_bytes(8, "little") + b"\x70" * 400
        data = data[:16] + len(data).to_bytes(8, "little") + data[24:]
    else:
        data += b"info" + (400).to_bytes(8, "big") + b"x" * 400
    for source in (data * joined, Pipe(io.BytesIO(data * joined))):
        samples, error, notices = _read(source)
        assert (len(samples), error, notices) == (joined * len(NOISE), "", [])


@pytest.mark.parametrize("codec", ["pcm_f32le", "pcm_f64le", "pcm_s24le", "pcm_s32le"])
@pytest.mark.parametrize("channels", ["mono|c0=c0", "stereo|c0=c0|c1=c0"])
def test_a_wave64_that_states_its_format_in_the_extension_is_read_as_such(
    codec: str, channels: str, tmp_path: Path
) -> None:
    """FFmpeg writes 0xFFFE for the format, and the format proper further behind."""
    path = _written_by_ffmpeg(tmp_path / "tone.w64", TONE, "-c:a", codec, "-af", f"pan={channels}")
    samples, error, notices = _read(path)
    assert (error, notices) == ("", [])
    np.testing.assert_allclose(samples, TONE, atol=1e-4)


def test_bytes_after_a_wave64_are_noticed() -> None:
    data = _write("W64", "PCM_16", NOISE) + b"x" * 600
    for source in (data, Pipe(io.BytesIO(data))):
        samples, error, notices = _read(source)
        assert (len(samples), error) == (len(NOISE), "")
        assert notices == ["600 bytes follow the end of the recording; they were not read."]


@pytest.mark.parametrize("channels", [1, 2])
def test_a_wav_with_two_formats_is_rejected_as_a_file_and_from_a_pipe(channels: int) -> None:
    data = bytearray(_write("WAV", "PCM_16"))
    second = bytearray(data[12:36])
    second[10] = channels
    data[36:36] = second
    data[4:8] = (len(data) - 8).to_bytes(4, "little")
    for source in (bytes(data), Pipe(io.BytesIO(data))):
        with pytest.raises(AudioFileError, match="is damaged"):
            _read(source)


def _odd(name: bytes, order: Any, padding: bytes) -> bytes:
    """Return a chunk of an odd length."""
    body = b"INFOISFT" + (5).to_bytes(4, order) + b"1.2.3" if name == b"LIST" else b"\1" * 17
    return name + len(body).to_bytes(4, order) + body + padding


@pytest.mark.parametrize("joined", [1, 2])
@pytest.mark.parametrize(
    "places", ["begin", "samples", "begin samples", "samples samples", "samples end end"]
)
@pytest.mark.parametrize("container", ["WAV", "RIFX", "RF64", "AIFF"])
@pytest.mark.parametrize("name", [b"LIST", b"NAME"])
@pytest.mark.parametrize("padding", [b"", b"\0"], ids=["bare", "padded"])
def test_chunks_of_odd_length_are_read_with_and_without_padding(
    container: str, places: str, joined: int, name: bytes, padding: bytes
) -> None:
    """Some recorders write none. libsndfile rejects such a WAV, and an RF64 that has it."""
    file = io.BytesIO()
    endian = {"RIFX": "BIG", "RF64": "LITTLE"}.get(container, "FILE")
    written_as = "WAV" if container == "RIFX" else container
    soundfile.write(file, NOISE, RATE_HZ, format=written_as, subtype="PCM_16", endian=endian)
    data = file.getvalue()
    order: Any = "big" if container in ("RIFX", "AIFF") else "little"
    offsets = {
        "begin": data.index(b"fmt ") if container == "RF64" else 12,
        "samples": data.index(b"SSND" if container == "AIFF" else b"data"),
        "end": len(data),
    }
    for place in reversed(places.split()):
        data = data[: offsets[place]] + _odd(name, order, padding) + data[offsets[place] :]
    at, size = (20, 8) if container == "RF64" else (4, 4)
    data = data[:at] + (len(data) - 8).to_bytes(size, order) + data[at + size :]
    for source in (data * joined, Pipe(io.BytesIO(data * joined))):
        samples, error, _ = _read(source)
        assert (len(samples), error) == (joined * len(NOISE), "")


@pytest.mark.parametrize("length", [16, 18])
def test_a_chunk_of_a_wrong_length_is_damage(length: int) -> None:
    data = _write("WAV", "PCM_16")
    data = data[:36] + b"LIST" + length.to_bytes(4, "little") + b"x" * 17 + data[36:]
    for source in (data, Pipe(io.BytesIO(data))):
        with pytest.raises(AudioFileError, match="is damaged"):
            _read(source)


def test_a_bw64_is_read_as_a_file_and_from_a_pipe() -> None:
    data = b"BW64" + _write("RF64", "PCM_16")[4:]
    for source in (data, 2 * data, Pipe(io.BytesIO(data))):
        samples, error, notices = _read(source)
        assert (len(samples) % len(TONE), error, notices) == (0, "", [])


def test_a_wav_with_two_chunks_of_samples_is_rejected() -> None:
    data = _write("WAV", "PCM_16", NOISE)
    data += data[data.index(b"data") :]
    data = data[:4] + (len(data) - 8).to_bytes(4, "little") + data[8:]
    with pytest.raises(AudioFileError, match="damaged"):
        _read(data)
    assert "damaged" in _read(Pipe(io.BytesIO(data)))[1]


@pytest.mark.usefixtures("either_ffmpeg")
@pytest.mark.parametrize("joined", [1, 2])
@pytest.mark.parametrize(
    ("codec", "name"),
    [
        ("adpcm_ima_qt", "IMA ADPCM"),
        ("opus", "Opus"),
        ("flac", "FLAC"),
        ("libmp3lame", "MP3"),
        ("ac3", "AC-3"),
    ],
)
def test_compressed_audio_in_caf_is_read_or_named(
    codec: str,
    name: str,
    joined: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = _written_by_ffmpeg(tmp_path / "compressed.caf", NOISE, "-c:a", codec, "-strict", "-2")
    data = path.read_bytes() * joined
    with RecordingFile(data) as recording:
        found_s = sum(map(len, recording.blocks())) / recording.sample_rate_hz
        assert (str(recording.format), recording.notices) == (f"{name} in CAF", [])
    assert found_s == pytest.approx(joined * len(NOISE) / RATE_HZ, abs=joined * 0.15)  # what encoders add
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("earmark_audio.ffmpeg.has_package", lambda: False)
    with pytest.raises(AudioFileError, match=f"{name} in CAF recording is not read here"):
        _read(data)


@pytest.mark.usefixtures("either_ffmpeg")
def test_alac_in_caf_is_read_in_both_forms(tmp_path: Path) -> None:
    """FFmpeg writes the configuration as QuickTime has it, libsndfile without the boxes around it."""
    path = _written_by_ffmpeg(tmp_path / "tone.caf", TONE, "-c:a", "alac")
    for source in (path, _write("CAF", "ALAC_16")):
        samples, error, notices = _read(source)
        assert (error, notices) == ("", [])
        np.testing.assert_allclose(samples[: len(TONE)], TONE, atol=1e-4)


@pytest.mark.usefixtures("either_ffmpeg")
@pytest.mark.parametrize("suffix", ["wv", "tta", "mka", "mp4"])
def test_damage_within_lossless_audio_is_an_error_and_not_noise(suffix: str, tmp_path: Path) -> None:
    codec = ["-c:a", "flac", "-strict", "-2"] if suffix in ("mka", "mp4") else []
    path = _written_by_ffmpeg(tmp_path / f"tone.{suffix}", np.tile(TONE, 4), *codec)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    samples, error, _ = _read(bytes(data))
    assert "damaged" in error or "truncated" in error
    assert np.abs(samples).max(initial=0) <= np.abs(TONE).max() + 0.001


@pytest.mark.usefixtures("either_ffmpeg")
def test_a_wavpack_that_ends_within_its_first_block_is_not_called_empty(tmp_path: Path) -> None:
    path = _written_by_ffmpeg(tmp_path / "tone.wv", TONE)
    data = path.read_bytes()
    _, error, _ = _read(data[: len(data) * 6 // 10])
    assert "truncated" in error or "damaged" in error


@pytest.mark.usefixtures("either_ffmpeg")
@pytest.mark.parametrize("joined", [1, 2])
@pytest.mark.parametrize(
    ("codec", "name"), [("mp2", "MP2"), ("ac3", "AC-3"), ("g722", "G.722"), ("aac", "AAC"), ("wmav2", "WMA")]
)
def test_compressed_audio_in_wav_is_read_or_named(
    codec: str,
    name: str,
    joined: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = _written_by_ffmpeg(tmp_path / "compressed.wav", NOISE, "-c:a", codec)
    once, *_ = _read(path)
    data = path.read_bytes() * joined
    samples, error, notices = _read(data)
    if codec == "aac":  # its frames have no limits in WAV
        assert "The AAC in WAV is damaged, or of a kind that FFmpeg does not decode" in error
    else:
        assert len(once) > 0.95 * len(NOISE)
        assert (len(samples), error, notices) == (joined * len(once), "", [])
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("earmark_audio.ffmpeg.has_package", lambda: False)
    with pytest.raises(AudioFileError, match=f"{name} in WAV recording is not read here"):
        _read(data)


@pytest.mark.parametrize(("container", "offset"), [("AIFF", 42), ("AU", 8), ("W64", 0), ("CAF", 0)])
def test_other_headers_that_were_never_finished_are_read(container: str, offset: int) -> None:
    data = bytearray(_write(container, "PCM_16"))
    if container in ("W64", "CAF"):
        offset = data.index(b"data") + (16 if container == "W64" else 4)
        data[offset : offset + 8] = bytes(8)
    else:
        if container == "AIFF":
            offset = data.index(b"SSND") + 4
            data[4:8] = bytes(4)
        data[offset : offset + 4] = bytes(4)
    samples, error, notices = _read(bytes(data))
    assert (len(samples), error) == (RATE_HZ, "")
    assert "never finished" in " ".join(notices)


def _flac(stated_frames: int) -> bytes:
    data = bytearray(_write("FLAC", "PCM_16"))
    assert int.from_bytes(data[22:26], "big") == RATE_HZ
    data[22:26] = stated_frames.to_bytes(4, "big")
    return bytes(data)


def test_a_flac_that_states_no_length_is_read() -> None:
    samples, error, notices = _read(_flac(0))
    assert (len(samples), error, notices) == (RATE_HZ, "", [])


def test_a_flac_that_is_longer_than_it_states_is_read() -> None:
    samples, error, notices = _read(_flac(RATE_HZ // 2))
    assert (len(samples), error) == (RATE_HZ, "")
    assert notices == ["The recording is longer than its header states; it was read to its end."]


TRAILERS = {"tag": b"TAG" + bytes(125), "zeros": bytes(99), "both": bytes(5000) + b"TAG" + bytes(125)}
OTHER = {"noise": np.random.default_rng(3).bytes(20_000), "a file": _write("WAV", "PCM_16")}


@pytest.mark.parametrize("trailer", [*TRAILERS.values(), *OTHER.values()], ids=[*TRAILERS, *OTHER])
@pytest.mark.parametrize("joined", [1, 2])
def test_bytes_after_the_end_of_a_flac_are_noticed(trailer: bytes, joined: int) -> None:
    samples, error, notices = _read((_write("FLAC", "PCM_16") + trailer) * joined)
    assert (len(samples), error) == (RATE_HZ * joined, "")
    assert notices == ["Other bytes follow the end of the recording; they were not read."]


@pytest.mark.parametrize("trailer", TRAILERS.values(), ids=TRAILERS)
def test_a_tag_and_zeros_after_a_flac_that_states_no_length_are_noticed(trailer: bytes) -> None:
    samples, error, notices = _read(_flac(0) + trailer)
    assert (len(samples), error) == (RATE_HZ, "")
    assert notices == [f"{len(trailer)} bytes follow the end of the recording; they were not read."]


def _ogg(codec: str) -> bytes:
    if codec in ("VORBIS", "OPUS"):
        return _write("OGG", codec, NOISE)
    if shutil.which("ffmpeg") is None:
        pytest.skip("no ffmpeg to write the file with")
    command = ["ffmpeg", "-loglevel", "quiet", "-i", "-", "-c:a", codec, "-f", "ogg", "-"]
    return subprocess.run(
        command, input=_write("WAV", "PCM_16", NOISE), capture_output=True, check=True
    ).stdout


def _pages(data: bytes) -> list[bytes]:
    starts = [at for at in range(len(data)) if data.startswith(b"OggS\0", at)]
    return [data[a:b] for a, b in zip(starts, [*starts[1:], len(data)], strict=True)]


def _flipped(page: bytes) -> bytes:
    return page[:-3] + bytes([page[-3] ^ 4]) + page[-2:]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "a bit": _flipped,
    "zeros": lambda page: bytes(len(page)),
    "no page": lambda _: b"",
    "half a page": lambda page: page[: len(page) // 2],
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.usefixtures("either_ffmpeg")
@pytest.mark.parametrize("codec", ["VORBIS", "OPUS", "flac", "libspeex"])
def test_a_damaged_page_of_ogg_ends_the_recording_with_an_error(
    codec: str, damage: Callable[[bytes], bytes]
) -> None:
    data = _ogg(codec)
    whole, error, notices = _read(data)
    assert (abs(len(whole) - len(NOISE)) < 1000, error, notices) == (True, "", [])
    pages = _pages(data)
    at = len(pages) - 2
    cut = b"".join(pages[:at])
    before, error, notices = _read(cut)
    assert 1.9 * RATE_HZ < len(before) < len(whole)
    assert (error, "truncated" in notices[0]) == ("", True), "only the end is missing"
    damaged = cut + damage(pages[at]) + pages[-1]
    for source in (damaged, damaged + data):
        samples, error, notices = _read(source)
        assert np.array_equal(samples, before)
        # Half a page may seem to reach beyond the end of the file.
        assert "is damaged" in error or "is truncated" in error
        assert notices == []


@pytest.mark.parametrize("at", [0, 1, 2, -1])
def test_damage_in_a_joined_ogg_file_keeps_what_was_before(at: int) -> None:
    data = _ogg("VORBIS")
    once, *_ = _read(data)
    pages = _pages(data)
    pages[at] = _flipped(pages[at])
    samples, error, _ = _read(data + b"".join(pages))
    assert np.array_equal(samples[: len(once)], once)
    assert "is damaged" in error


def test_damage_in_another_stream_of_ogg_does_no_harm() -> None:
    """Two streams, page by page: only the first one is decoded."""
    one, other = _pages(_ogg("VORBIS")), _pages(_write("OGG", "VORBIS", NOISE))
    serials = {page[14:18] for page in one + other}
    assert len(serials) == 2
    damaged = [*other[:3], _flipped(other[3]), *other[5:]]
    samples, error, notices = _read(b"".join(a + b for a, b in zip(one, [*damaged, b""], strict=True)))
    assert (len(samples), error, notices) == (len(NOISE), "", [])


def test_an_ogg_recording_of_a_radio_station_is_read() -> None:
    """It has the headers of the station's stream, and then pages from its middle."""
    pages = _pages(_ogg("OPUS"))
    samples, error, notices = _read(b"".join([*pages[:2], *pages[3:]]))
    assert (1.9 * RATE_HZ < len(samples) < len(NOISE), error) == (True, "")
    assert "cut out of a longer one" in notices[0]


@pytest.mark.parametrize("trailing", [b"\0", b"TAG" + bytes(125), bytes(5000)], ids=["1", "tag", "zeros"])
def test_bytes_after_the_end_of_ogg_are_noticed(trailing: bytes) -> None:
    samples, error, notices = _read(_ogg("OPUS") + trailing)
    assert (len(samples), error) == (len(NOISE), "")
    assert notices == [f"{len(trailing)} bytes follow the end of the recording; they were not read."]


@pytest.mark.parametrize("tags", [_id3(10), _id3(10_000), _id3(0) + _id3(300_000)], ids=["10", "10k", "two"])
@pytest.mark.parametrize(("container", "codec", "tolerance"), WRITTEN, ids=IDS)
def test_an_id3_tag_before_any_format_is_skipped(
    container: str, codec: str, tolerance: int, tags: bytes
) -> None:
    data = _write(container, codec)
    samples, *_ = _read(data)
    for source in (tags + data, Pipe(io.BytesIO(tags + data))):
        behind, error, notices = _read(source)
        assert (error, notices) == ("", [])
        assert np.array_equal(behind, samples)


@pytest.mark.parametrize("tag", [_id3(10), _id3(10_000)], ids=["10", "10k"])
@pytest.mark.parametrize("options", [["-f", "adts"], ["-c:a", "flac", "-f", "ogg"]], ids=["aac", "oga"])
@pytest.mark.usefixtures("either_ffmpeg")
def test_an_id3_tag_before_a_format_of_ffmpeg_is_skipped(options: list[str], tag: bytes) -> None:
    if shutil.which("ffmpeg") is None:
        pytest.skip("no ffmpeg to write the file with")
    command = ["ffmpeg", "-loglevel", "quiet", "-i", "-", *options, "-"]
    data = subprocess.run(command, input=_write("WAV", "PCM_16"), capture_output=True, check=True).stdout
    samples, error, notices = _read(tag + data)
    assert (error, notices) == ("", [])
    assert np.array_equal(samples, _read(data)[0])


@pytest.mark.parametrize("tag", [_id3(10), _id3(10_000)], ids=["10", "10k"])
def test_what_follows_an_id3_tag_is_named(tag: bytes) -> None:
    for data, name in (
        (b"PK\3\4" + bytes(99), "ZIP archive"),
        (_write("WAV", "PCM_16")[:20], "WAV file"),
        (b"", "MP3 file holds no audio"),
    ):
        for source in (tag + data, Pipe(io.BytesIO(tag + data))):
            with pytest.raises(AudioFileError, match=name):
                _read(source)


def test_very_many_id3_tags_are_rejected() -> None:
    with pytest.raises(AudioFileError):
        _read(_id3(0) * 100_000)


LYRICS = b"LYRICSBEGININD0000200ETT00010my lyrics"
LYRICS_TAGS = {
    "Lyrics3v2": LYRICS + b"%06dLYRICS200" % len(LYRICS) + b"TAG" + bytes(125),
    "Lyrics3v2 alone": LYRICS + b"%06dLYRICS200" % len(LYRICS),
    "Lyrics3v1": b"LYRICSBEGIN[00:02]some words\xff\xfb\x90LYRICSEND" + b"TAG" + bytes(125),
    "TAG+": b"TAG+" + b"A long title".ljust(223) + b"TAG" + bytes(125),
    "a title with a plus": b"TAG+" + bytes(124),
}


@pytest.mark.parametrize("tag", LYRICS_TAGS.values(), ids=LYRICS_TAGS)
@pytest.mark.parametrize("joined", [1, 2])
def test_lyrics_and_long_titles_after_an_mp3_are_no_damage(tag: bytes, joined: int) -> None:
    data = _write("MP3", "MPEG_LAYER_III")
    once, *_ = _read(data)
    samples, error, notices = _read((data + tag) * joined)
    assert (len(samples), error, notices) == (joined * len(once), "", [])


def test_an_empty_recording_is_rejected() -> None:
    with pytest.raises(AudioFileError, match="no samples"):
        _read(_write("WAV", "PCM_16", TONE[:0]))
    with pytest.raises(AudioFileError, match="empty"):
        _read(b"")


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"PK\x03\x04" + bytes(60), "ZIP archive"),
        (b"<!DOCTYPE html><html>", "text file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(60), "PNG image"),
        (b"MThd" + bytes(60), "MIDI file"),
        (b"\0\0\x01\xba" + bytes(60), "an MPEG program stream, which is not supported: convert it"),
        (b"\xc0\x54\0\0\xf8\x72\x6f\xba" + bytes(60), "a TrueHD, which is not supported"),
        (b"\x64\xa3\x01\0" + bytes(60), "an IRCAM, which is not supported"),
        (b"\x02#!SILK_V3" + bytes(60), "a SILK recording: convert it to WAV with a program that decodes"),
        (bytes(range(200, 256)) * 3, "format is unknown"),
    ],
)
def test_what_is_no_recording_is_named(head: bytes, name: str) -> None:
    with pytest.raises(AudioFileError, match=name):
        _read(head)


WRITTEN_BY_FFMPEG = "m4a webm aac spx oga mka ts voc rm dts sox nut flv wma mp2 ac3 wv tta avi 3gp".split()  # noqa: SIM905


@pytest.mark.parametrize("name", [f"word.{suffix}" for suffix in WRITTEN_BY_FFMPEG])
def test_formats_of_ffmpeg_are_read_or_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = {
        "word.oga": ["-c:a", "flac"],
        "word.spx": ["-c:a", "libspeex"],
        "word.rm": ["-c:a", "ac3"],
        "word.dts": ["-c:a", "dca", "-strict", "-2", "-ar", "48000"],
        "word.flv": ["-ar", "44100"],
        "word.3gp": ["-c:a", "aac"],
    }.get(name, [])
    path = _written_by_ffmpeg(tmp_path / name, TONE, *codec)
    samples, error, _ = _read(path)
    assert error == ""
    assert len(samples) >= 15_000
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("earmark_audio.ffmpeg.has_package", lambda: False)
    with pytest.raises(AudioFileError, match=r"ffmpeg -i INPUT out\.wav"):
        _read(path)


@pytest.mark.usefixtures("either_ffmpeg")
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("tone.m4a", ["-movflags", "faststart"]),
        ("tone.webm", []),
        ("tone.mka", ["-c:a", "flac"]),
        ("tone.wma", []),
        ("tone.spx", ["-c:a", "libspeex"]),
        ("tone.rm", ["-c:a", "ac3"]),
        ("tone.ra", ["-c:a", "real_144", "-ar", "8000", "-f", "rm"]),
        ("tone.voc", []),
        ("tone.sox", []),
        ("tone.flv", ["-ar", "44100"]),
        ("tone.ts", []),
        ("tone.avi", ["-c:a", "pcm_s16le"]),
        ("tone.aac", []),
        ("tone.ac3", []),
    ],
)
def test_a_truncated_file_of_ffmpeg_gives_all_that_came_and_then_an_error(
    name: str, options: list[str], tmp_path: Path
) -> None:
    path = _written_by_ffmpeg(tmp_path / name, NOISE, *options)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    samples, error, notices = _read(path)
    with RecordingFile(path) as recording:
        rate_hz = recording.sample_rate_hz
    assert 1.5 < len(samples) / rate_hz < 3
    # A transport stream has no end: who records one stops within a packet.
    said = "".join(notices) if name == "tone.ts" else error
    assert "truncated" in said or "damaged" in said


@pytest.mark.usefixtures("either_ffmpeg")
@pytest.mark.parametrize(
    ("suffix", "sentence"),
    [
        ("mp2", "The last frame is incomplete: the recording may be truncated."),
        ("nut", "No index marks the end of the recording: it may be truncated."),
    ],
)
def test_a_truncated_file_that_states_no_length_is_noticed(
    suffix: str, sentence: str, tmp_path: Path
) -> None:
    path = _written_by_ffmpeg(tmp_path / f"tone.{suffix}", TONE, "-c:a", "mp2")
    whole, *rest = _read(path)
    assert rest == ["", []]
    path.write_bytes(path.read_bytes()[:-200])
    samples, error, notices = _read(path)
    assert (error, notices) == ("", [sentence])
    assert len(samples) > 0.9 * len(whole)


@pytest.mark.usefixtures("either_ffmpeg")
def test_a_transport_stream_of_a_camcorder_is_read(tmp_path: Path) -> None:
    """Four bytes with the time are before each packet."""
    path = _written_by_ffmpeg(tmp_path / "noise.ts", NOISE, "-c:a", "mp2")
    plain, *_ = _read(path)
    data = path.read_bytes()
    timed = b"".join(bytes([14, 191, 70, 34]) + data[at : at + 188] for at in range(0, len(data), 188))
    samples, error, notices = _read(timed)
    assert (len(samples), error, notices) == (len(plain), "", [])
    *_, (notice,) = _read(timed[:-100])
    assert notice == "A packet is incomplete: the recording may be truncated or damaged."


@pytest.mark.usefixtures("either_ffmpeg")
@pytest.mark.parametrize("codec", ["mp2", "aac"])
def test_a_transport_stream_that_lost_packets_is_read_to_its_end(codec: str, tmp_path: Path) -> None:
    path = _written_by_ffmpeg(tmp_path / "noise.ts", NOISE, "-c:a", codec)
    whole, *_ = _read(path)
    data = path.read_bytes()
    packets = [data[at : at + 188] for at in range(0, len(data), 188)]
    del packets[len(packets) // 3 :: len(packets) // 4]
    path.write_bytes(b"".join(packets))
    samples, error, _ = _read(path)
    assert error == "The recording is damaged: a part of it cannot be decoded."
    assert len(samples) > 0.8 * len(whole)


@pytest.mark.usefixtures("either_ffmpeg")
@pytest.mark.parametrize(("suffix", "codec"), [("ts", "ac3"), ("aac", "aac"), ("ac3", "ac3")])
def test_a_broadcast_that_changes_from_mono_to_stereo_is_read_to_its_end(
    suffix: str, codec: str, tmp_path: Path
) -> None:
    mono = _written_by_ffmpeg(tmp_path / f"mono.{suffix}", TONE, "-c:a", codec)
    stereo = _written_by_ffmpeg(tmp_path / f"stereo.{suffix}", TONE, "-c:a", codec, "-ac", "2")
    expected = sum(len(_read(path)[0]) for path in (mono, stereo))
    mono.write_bytes(mono.read_bytes() + stereo.read_bytes())
    samples, error, notices = _read(mono)
    assert (len(samples), error, notices) == (expected, "", [])


@pytest.mark.usefixtures("either_ffmpeg")
@pytest.mark.parametrize("suffix", ["webm", "m4a", "wma"])
def test_a_gap_is_noticed_and_not_called_truncated(suffix: str, tmp_path: Path) -> None:
    """A browser records none while the microphone is muted."""
    gap = "aselect='not(between(t,1,2))'"
    path = _written_by_ffmpeg(tmp_path / f"noise.{suffix}", NOISE, "-ar", "48000", "-af", gap)
    samples, error, (notice,) = _read(path)
    assert (len(samples) / 48_000, error) == (pytest.approx(3, abs=0.15), "")
    assert notice.startswith("The audio begins late or has gaps, ")


@pytest.mark.usefixtures("either_ffmpeg")
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "mka"])
def test_audio_that_begins_after_the_video_is_noticed(suffix: str, tmp_path: Path) -> None:
    video = (
        [] if suffix == "mka" else ["-f", "lavfi", "-i", "color=s=16x16:r=5:d=6", "-map", "1", "-map", "0"]
    )
    codecs = ["-c:v", "mpeg2video", "-r", "25", "-c:a", "mp2"]
    late = ("-itsoffset", "2")
    path = _written_by_ffmpeg(tmp_path / f"late.{suffix}", NOISE, *video, *codecs, of_input=late)
    samples, error, notices = _read(path)
    assert (round(len(samples) / RATE_HZ, 1), error) == (4.0, "")
    if suffix == "mka":  # the file begins with its audio
        assert notices == []
    else:
        (notice,) = notices
        assert float(notice.split()[7]) == pytest.approx(2, abs=0.05)


VIDEO = {
    "avi": ["-c:a", "mp2"],
    "mkv": [],
    "mov": ["-c:a", "aac"],
    "mp4": [],
    "nut": ["-c:a", "mp2"],
    "ogg": [],
    "ts": [],
    "flv": ["-ar", "44100"],
    "webm": [],
    "wmv": [],
}


def _film(path: Path, seconds: int, *of_audio: str) -> Path:
    """Write noise with a video of this length; `of_audio`: options of its input."""
    video = ["-f", "lavfi", "-i", f"testsrc=s=64x48:r=5:d={seconds}", "-map", "1", "-map", "0"]
    return _written_by_ffmpeg(path, NOISE, *video, *VIDEO[path.suffix[1:]], of_input=of_audio)


@pytest.mark.usefixtures("either_ffmpeg")
@pytest.mark.parametrize(
    "suffix", [pytest.param(s, marks=() if s in ("avi", "wmv") else pytest.mark.slow) for s in VIDEO]
)
def test_audio_that_begins_late_or_ends_early_in_a_video_is_not_called_truncated(
    suffix: str, tmp_path: Path
) -> None:
    _, error, notices = _read(_film(tmp_path / f"short.{suffix}", 8))
    assert (error, notices) == ("", [])
    _, error, (notice,) = _read(_film(tmp_path / f"late.{suffix}", 4, "-itsoffset", "1.5"))
    assert error == ""
    assert float(notice.split()[7]) == pytest.approx(1.5, abs=0.1)


@pytest.mark.usefixtures("either_ffmpeg")
def test_a_gap_in_the_audio_of_a_video_is_not_called_truncated(tmp_path: Path) -> None:
    path = tmp_path / "gap.avi"
    _written_by_ffmpeg(path, NOISE, "-c:a", "mp2", "-af", "aselect='not(between(t,1,2))'")
    _, error, (notice,) = _read(path)
    assert error == ""
    assert float(notice.split()[7]) == pytest.approx(1, abs=0.1)


@pytest.mark.usefixtures("either_ffmpeg")
@pytest.mark.parametrize("suffix", ["avi", "flv", "mkv", "webm", "wmv"])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_truncated_video_is_reported(suffix: str, share: float, tmp_path: Path) -> None:
    data = _film(tmp_path / f"film.{suffix}", 4).read_bytes()
    _, error, _ = _read(data[: int(len(data) * share)])
    assert "truncated" in error or "damaged" in error


@pytest.mark.parametrize("container", ["flv", "matroska", "webm"])
def test_a_truncated_video_that_states_no_length_is_reported(container: str, tmp_path: Path) -> None:
    """A live recording ends with its last element, wherever it is cut off within it."""
    film = _film(tmp_path / f"film.{container.replace('matroska', 'mkv')}", 4)
    command = ["ffmpeg", "-loglevel", "quiet", "-i", film, "-c", "copy", "-f", container]
    command += ["-live", "1", "-"] if container == "webm" else ["-"]
    data = subprocess.run(command, check=True, capture_output=True).stdout
    assert _read(data)[1:] == ("", [])
    for missing in (5, 6, 7, 11, 50, 300):  # FLV has 4 bytes after the last packet
        _, error, _ = _read(data[:-missing])
        assert error == "The recording is truncated: its last packet is incomplete.", missing


@pytest.mark.parametrize(
    ("module", "head", "element"),
    [
        (matroska, b"\x18\x53\x80\x67\x01" + b"\xff" * 7, b"\xec\x80"),
        (video, b"FLV\x01\x04\0\0\0\x09\0\0\0\0", b"\x08" + bytes(14)),
        (mp4, b"\0\0\0\x08ftyp", b"\0\0\0\x08free"),
    ],
)
def test_a_film_of_empty_elements_does_not_keep_a_server_busy(
    module: Any, head: bytes, element: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    class File(io.BytesIO):
        reads = 0

        def read(self, size: int | None = -1, /) -> bytes:
            self.reads += 1
            return super().read(size)

    monkeypatch.setattr(module, "MAX_ELEMENTS", 100)
    file = File(head + 10_000 * element)
    size = len(file.getvalue())
    layout = Layout([Part(FileView(file, [(0, size)]))])
    if module is matroska:
        matroska.check_matroska_end(layout)
    elif module is video:
        video.check_flv_end(layout)
    else:
        mp4.mp4_layout(file, size)
    assert 100 <= file.reads < 200
    assert layout.missing is None


@pytest.mark.usefixtures("either_ffmpeg")
def test_a_transport_stream_with_video_that_ends_within_a_packet_is_noticed(tmp_path: Path) -> None:
    data = _film(tmp_path / "film.ts", 4).read_bytes()
    assert _read(data)[1:] == ("", [])
    for missing in (1, 100, len(data) // 2 // 188 * 188 + 94):
        _, error, (notice,) = _read(data[:-missing])
        assert (error, notice) == ("", "A packet is incomplete: the recording may be truncated or damaged.")


@pytest.mark.usefixtures("either_ffmpeg")
@pytest.mark.parametrize("suffix", ["mov", "mp4"])
def test_a_truncated_video_whose_index_is_at_its_end_is_named(suffix: str, tmp_path: Path) -> None:
    data = _film(tmp_path / f"film.{suffix}", 4).read_bytes()
    for share in (0.1, 0.5, 0.99):
        with pytest.raises(AudioFileError, match="truncated: its index, which is written last, is missing"):
            _read(data[: int(len(data) * share)])


@pytest.mark.usefixtures("either_ffmpeg")
@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        ("flv", ["-ar", "44100"]),
        ("tta", []),
        ("voc", []),
        ("spx", ["-c:a", "libspeex"]),
        ("wv", []),
        ("wma", []),
        ("rm", ["-c:a", "ac3"]),
        ("sox", []),
        ("nut", ["-c:a", "flac"]),
        ("ts", []),
        ("avi", []),
    ],
)
def test_joined_files_of_ffmpeg_are_read_to_the_end(suffix: str, options: list[str], tmp_path: Path) -> None:
    path = _written_by_ffmpeg(tmp_path / f"tone.{suffix}", TONE, *options)
    once, error, notices = _read(path)
    assert (error, notices) == ("", [])
    path.write_bytes(2 * path.read_bytes())
    samples, error, notices = _read(path)
    assert (len(samples), error, notices) == (2 * len(once), "", [])


def test_samples_far_beyond_full_scale_of_a_lossy_codec_are_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    """A damaged frame of MP3 may decode to anything: no integers were written as floats."""
    data = _write("MP3", "MPEG_LAYER_III")

    def read(sound: soundfile.SoundFile, *arguments: Any, **options: Any) -> np.ndarray:
        block = decoded(sound, *arguments, **options)
        return np.where(np.arange(len(block))[:, None] == 1000, 40, block) if sound.tell() > 8000 else block

    decoded = soundfile.SoundFile.read
    monkeypatch.setattr(soundfile.SoundFile, "read", read)
    samples, error, _ = _read(data)
    assert error == "The recording is damaged: it cannot be decoded from here on."
    assert 4000 <= len(samples) <= 12_000


@pytest.mark.parametrize(
    "options", [[], ["-movflags", "frag_keyframe+empty_moov"]], ids=["plain", "fragments"]
)
def test_an_m4a_that_another_one_follows_is_read_to_the_end(options: list[str], tmp_path: Path) -> None:
    path = _written_by_ffmpeg(tmp_path / "noise.m4a", NOISE, *options)
    alone, error, notices = _read(path)
    assert (error, notices) == ("", [])
    path.write_bytes(2 * path.read_bytes())
    samples, error, _ = _read(path)
    assert (len(samples), error) == (2 * len(alone), "")


@pytest.mark.usefixtures("either_ffmpeg")
def test_further_audio_tracks_are_reported(tmp_path: Path) -> None:
    if shutil.which("ffmpeg") is None:
        pytest.skip("no ffmpeg to write the file with")
    first, second, path = tmp_path / "noise.wav", tmp_path / "tone.wav", tmp_path / "both.mp4"
    soundfile.write(first, NOISE, RATE_HZ)
    soundfile.write(second, TONE, RATE_HZ)
    command = ["ffmpeg", "-loglevel", "quiet", "-i", first, "-i", second, "-map", "0:a", "-map", "1:a"]
    subprocess.run([*command, path], check=True)
    samples, error, notices = _read(path)
    assert (round(len(samples) / len(NOISE), 1), error) == (1.0, "")
    assert notices == ["The recording has 2 audio tracks; only the first one was read."]


def test_a_file_whose_codec_ffmpeg_does_not_know_is_reported(tmp_path: Path) -> None:
    path = _written_by_ffmpeg(tmp_path / "tone.webm", TONE)
    with pytest.raises(AudioFileError, match=r"codec|damaged|no audio"):
        _read(path.read_bytes().replace(b"A_OPUS", b"A_NONE"))


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="files of the kernel on Linux")
@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("/proc/self/status", "This is a text file: give a recording."),
        ("/proc/version", "This is a text file: give a recording."),
        ("/dev/zero", "The format is unknown"),
        ("/dev/null", "The recording is empty: it has no bytes."),
    ],
)
def test_a_file_that_states_no_length_is_read_as_a_pipe(path: str, sentence: str) -> None:
    with pytest.raises(AudioFileError, match=sentence):
        _read(path)


def test_a_recording_on_a_file_system_that_states_no_lengths_is_read() -> None:
    class Stateless(io.BytesIO):
        def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
            return 0 if whence == os.SEEK_END else super().seek(offset, whence)

    for container, codec in (("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS")):
        data = _write(container, codec)
        samples, error, _ = _read(Stateless(data))
        assert (len(samples), error) == (len(_read(data)[0]), "")


def test_a_pipe_is_read() -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    samples, error, _ = _read(Pipe(_write("FLAC", "PCM_16")))
    assert (len(samples), error) == (RATE_HZ, "")


class _Failing(io.BytesIO):
    """A file whose second part becomes unreadable, or is cut off, while the first is read."""

    error: OSError | None = None
    has_failed = False

    def read(self, size: int | None = -1, /) -> bytes:
        left = len(self.getbuffer()) // 2 - self.tell()
        if self.has_failed and (left < (size or 0) or size == -1):
            if self.error is not None:
                raise self.error
            return super().read(max(0, left))
        return super().read(size)


@pytest.mark.parametrize(
    ("error", "message"), [(None, "has become shorter"), (OSError(5, "I/O error"), "from here on: I/O error")]
)
@pytest.mark.parametrize("container", ["WAV", "AIFF", "AU", "W64", "CAF", "FLAC", "OGG", "MP3"])
def test_a_file_that_fails_while_it_is_read_is_not_called_whole(
    container: str, error: OSError | None, message: str
) -> None:
    subtype = {"OGG": "VORBIS", "MP3": "MPEG_LAYER_III"}.get(container, "PCM_16")
    file = _Failing(_id3(0) + _write(container, subtype, np.tile(NOISE, 4)))
    file.error = error
    with RecordingFile(file) as recording:
        blocks = recording.blocks()
        next(blocks)
        file.has_failed = True
        with pytest.raises(IncompleteError, match=message):
            list(blocks)


def test_channels_that_cancel_and_samples_that_clip_are_noticed() -> None:
    opposite = np.stack([TONE, -TONE], axis=1)
    *_, notices = _read(_write("WAV", "PCM_16", opposite))
    assert "cancel" in notices[0]
    *_, notices = _read(_write("WAV", "PCM_16", np.sign(TONE)))
    assert "full scale" in notices[0]
    *_, notices = _read(_write("WAV", "PCM_16", 0 * TONE))
    assert "digital silence" in notices[0]


@pytest.mark.parametrize("sign", [-1, 1], ids=["opposite", "equal"])
@pytest.mark.parametrize("part", [1.0, 0.4])
def test_channels_that_cancel_but_for_their_noise_or_for_a_part_of_the_time_are_noticed(
    sign: int, part: float
) -> None:
    rng = np.random.default_rng(3)
    noise = 0.002 * rng.standard_normal((2, 5 * RATE_HZ)).astype(np.float32)
    speech = np.resize(TONE, 5 * RATE_HZ)
    signs = np.where(np.arange(len(speech)) < part * len(speech), sign, 1)
    *_, notices = _read(_write("WAV", "PCM_16", np.stack([speech, signs * speech], 1) + noise.T))
    assert [notice for notice in notices if "cancel" in notice] == notices
    assert bool(notices) == (sign < 0)


def test_the_copy_for_the_program_has_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copies = tmp_path / "copies"
    path = _written_by_ffmpeg(tmp_path / "tone.m4a", TONE)
    copies.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(copies))
    monkeypatch.setattr("earmark_audio.ffmpeg.has_package", lambda: False)
    with RecordingFile(path) as recording:
        assert list(copies.iterdir()) == []
        assert sum(len(block) for block in recording.mono()) >= 15_000


def test_one_channel_can_be_chosen() -> None:
    data = _write("WAV", "FLOAT", np.stack([TONE, 0 * TONE], axis=1))
    with RecordingFile(data) as recording:
        assert np.array_equal(np.concatenate(list(recording.mono(1))), TONE)
    with RecordingFile(data) as recording:
        assert np.allclose(np.concatenate(list(recording.mono())), TONE / 2)
    with RecordingFile(data) as recording, pytest.raises(AudioFileError, match="no channel 3"):
        list(recording.mono(3))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_floats_that_are_not_finite_are_rejected_with_their_own_remedy(value: float) -> None:
    with pytest.raises(AudioFileError, match=r"but one is -?(nan|inf): replace it by 0\.$"):
        _read(_write("WAV", "FLOAT", np.append(TONE, np.float32(value))))


def test_floats_that_are_zero_in_16_bits_are_noticed() -> None:
    """Denormal floats, for example."""
    for level, expected in ((1e-38, True), (1e-5, True), (1e-4, False)):
        notices = _read(_write("WAV", "FLOAT", (level * TONE).astype(np.float32)))[2]
        assert any("digital silence" in notice for notice in notices) == expected


def test_floats_of_integer_scale_are_rejected() -> None:
    with pytest.raises(AudioFileError, match="divide 16-bit integers by 32768"):
        _read(_write("WAV", "FLOAT", TONE * 20_000))


@pytest.mark.slow
@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    container=st.sampled_from(["WAV", "RF64", "W64"]),
    codec=st.sampled_from(["PCM_16", "PCM_24", "FLOAT", "ULAW"]),
    kept=st.floats(0.1, 1),
    block_bytes=st.integers(500, 9000),
    joined=st.booleans(),
)
def test_a_pipe_gives_the_samples_of_a_file(
    container: str, codec: str, kept: float, block_bytes: int, joined: bool
) -> None:
    """However the bytes come, and wherever they end."""

    class Slow(io.BytesIO):
        def read1(self, size: int | None = -1, /) -> bytes:
            return super().read1(min(block_bytes, size or 0))

    data = _write(container, codec, NOISE) * (1 + joined)
    data = data[: int(len(data) * kept)]
    samples, error, notices = _read(data)
    piped, piped_error, piped_notices = _read(Pipe(Slow(data)))
    assert np.array_equal(samples, piped)
    assert bool(error) == bool(piped_error)
    assert notices == piped_notices


FILES = [_write(container, codec, np.tile(TONE, 2)) for container, codec, _ in WRITTEN]


@pytest.mark.slow
@settings(deadline=None, max_examples=300, derandomize=True)
@given(data=st.data())
def test_damaged_files_give_samples_or_a_sentence(data: st.DataObject) -> None:
    """Cut anywhere, with zeroed or maximal bytes in the header, joined, piped: no other exception."""
    file = bytearray(data.draw(st.sampled_from(FILES)))
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, min(len(file) - 1, 200)))
        width = data.draw(st.integers(1, 8))
        byte = data.draw(st.sampled_from([0, 255, 127]))
        file[at : at + width] = bytes([byte]) * width
    cut = data.draw(st.integers(0, len(file)))
    whole = bytes(file[:cut] if data.draw(st.booleans()) else file)
    if data.draw(st.booleans()):
        whole += data.draw(st.sampled_from(FILES))
    problem = ""
    source = Pipe(io.BytesIO(whole)) if data.draw(st.booleans()) else whole
    try:
        samples, _, _ = _read(source)
        assert np.isfinite(samples).all()
    except AudioFileError as error:
        problem = str(error)
    assert not problem or (problem[0].isupper() and problem.endswith("."))
