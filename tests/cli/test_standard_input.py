"""Standard input, other pipes, and what is no recording in them."""

from __future__ import annotations

import base64
import io
import os
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile
from earmark_audio import Pipe
from earmark_cli.audio_sources import RawInput, open_source
from earmark_client import RecordingError
from earmark_client.audio import AudioFormat
from support.earmark_command import RATE_HZ, WORDS, Done, earmark, environment, json_lines, samples

if TYPE_CHECKING:
    from pathlib import Path

KEYWORDS = [word for _, word in WORDS]
# libsndfile's container and codec, and whether it is decoded as it comes.
RECORDINGS = [
    ("WAV", "PCM_16"),
    ("WAV", "PCM_U8"),
    ("WAV", "PCM_24"),
    ("WAV", "FLOAT"),
    ("WAV", "ULAW"),
    ("WAVEX", "PCM_32"),
    ("WAV", "IMA_ADPCM"),
    ("RF64", "PCM_16"),
    ("W64", "PCM_16"),
    ("AIFF", "PCM_16"),
    ("AU", "PCM_16"),
    ("CAF", "PCM_16"),
    ("FLAC", "PCM_16"),
    ("OGG", "VORBIS"),
    ("OGG", "OPUS"),
    ("MP3", "MPEG_LAYER_III"),
]
IDS = [f"{container} {codec}" for container, codec in RECORDINGS]


def written(container: str, codec: str) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples() / 32768, RATE_HZ, format=container, subtype=codec)
    return file.getvalue()


def through_pipe(*args: str | Path, data: bytes) -> Done:
    """Run the command with a pipe as standard input, which cannot seek."""
    done = earmark(*args, stdin=data, pipe=True)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def words(output: str) -> list[str]:
    return [line["keyword"] for line in json_lines(output) if line["type"] == "detection"]


@pytest.mark.parametrize(("container", "codec"), RECORDINGS, ids=IDS)
def test_every_format_is_read_from_a_pipe_as_from_a_file(
    address: str, tmp_path: Path, container: str, codec: str
) -> None:
    data = written(container, codec)
    path = tmp_path / "recording"
    path.write_bytes(data)
    from_file = json_lines(earmark("spot", path, "--server", address, "--json").stdout)
    done = through_pipe("spot", "-", "--server", address, "--json", data=data)
    assert (done.returncode, done.stderr) == (0, "")
    piped = json_lines(done.stdout)
    assert [line["keyword"] for line in piped if line["type"] == "detection"] == KEYWORDS
    ignored = {"time", "source", "elapsed_s", "speed", "request_id"}
    assert [{k: v for k, v in line.items() if k not in ignored} for line in piped] == [
        {k: v for k, v in line.items() if k not in ignored} for line in from_file
    ]


def test_mp3_that_begins_within_a_frame_is_read_from_a_pipe(address: str) -> None:
    data = written("MP3", "MPEG_LAYER_III")[700:]
    assert data[:3] != b"ID3"
    done = through_pipe("spot", "-", "--server", address, "--json", data=data)
    assert words(done.stdout) == KEYWORDS


@pytest.mark.parametrize("name", ["/dev/stdin", "/proc/self/fd/0", "/dev/fd/0"])
@pytest.mark.parametrize("container", ["WAV", "FLAC"])
def test_other_names_of_standard_input_are_read(address: str, name: str, container: str) -> None:
    done = through_pipe("spot", name, "--server", address, "--json", data=written(container, "PCM_16"))
    assert (done.returncode, words(done.stdout)) == (0, KEYWORDS)


@pytest.mark.parametrize("command", ["spot", "plot", "classify"])
@pytest.mark.parametrize("container", ["WAV", "FLAC"])
def test_a_named_pipe_is_read(address: str, tmp_path: Path, command: str, container: str) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    data = written(container, "PCM_16")
    writer = threading.Thread(target=lambda: pipe.write_bytes(data))
    writer.start()
    out = ["-o", str(tmp_path / "page.html")] if command == "plot" else []
    done = earmark(command, pipe, *out, "--server", address)
    writer.join(timeout=30)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", ["plot", "classify"])
@pytest.mark.parametrize("container", ["WAV", "FLAC"])
def test_other_commands_read_a_recording_from_standard_input(
    address: str, tmp_path: Path, command: str, container: str
) -> None:
    out = ["-o", str(tmp_path / "page.html")] if command == "plot" else []
    done = through_pipe(command, "-", *out, "--server", address, data=written(container, "PCM_16"))
    assert (done.returncode, "standard input" in done.stderr) == (0, False)
    done = through_pipe(command, "-", *out, "--server", address, data=samples().tobytes())
    assert done.returncode == 1
    assert done.stderr.startswith("earmark: standard input: the format is unknown")


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(0, 0), (36, 0), (0xFFFFFFFF, 0xFFFFFFFF), (0x7FFFFFFF, 0x7FFFFFDB)])
def test_a_wav_whose_length_is_not_known_is_spotted_while_it_comes(
    address: str, sizes: tuple[int, int]
) -> None:
    data = bytearray(written("WAV", "PCM_16"))
    data[4:8], data[40:44] = (size.to_bytes(4, "little") for size in sizes)
    command = [sys.executable, "-m", "earmark_cli", "spot", "-", "--json", "--server", address]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    ) as process:
        assert process.stdin
        assert process.stdout
        second_word = 44 + 2 * RATE_HZ * 2  # "low" and "mid" have come
        process.stdin.write(data[:second_word])
        process.stdin.flush()
        seen = [json_lines(process.stdout.readline().decode())[0] for _ in range(3)]
        assert [line.get("keyword") for line in seen] == [None, "low", "mid"]
        process.stdin.write(data[second_word:])
        process.stdin.close()
        assert words(process.stdout.read().decode()) == ["high"]
        assert process.stderr
        notices = process.stderr.read().decode()
        assert ("header was never finished" in notices) == (sizes[1] == 0)
        assert process.wait(timeout=30) == 0


def test_a_truncated_wav_on_a_pipe_gives_its_words_and_then_an_error(address: str) -> None:
    data = written("WAV", "PCM_16")
    done = through_pipe("spot", "-", "--server", address, "--json", data=data[: len(data) * 3 // 4])
    assert (done.returncode, words(done.stdout)) == (1, KEYWORDS)
    assert "standard input: the recording is truncated: its last 32011 bytes are missing" in done.stderr


@pytest.mark.parametrize("container", ["WAV", "RF64", "W64", "AIFF", "FLAC"])
def test_joined_recordings_on_a_pipe_are_read_to_the_end(address: str, container: str) -> None:
    data = written(container, "PCM_16")
    done = through_pipe("spot", "-", "--server", address, "--json", data=data + data)
    assert (done.returncode, words(done.stdout)) == (0, 2 * KEYWORDS)


def test_a_joined_wav_of_another_rate_on_a_pipe_is_reported(address: str) -> None:
    other = io.BytesIO()
    soundfile.write(other, samples(), 8000, format="WAV")
    data = written("WAV", "PCM_16") + other.getvalue()
    done = through_pipe("spot", "-", "--server", address, "--json", data=data)
    assert (done.returncode, words(done.stdout)) == (1, KEYWORDS)
    assert "standard input: another recording follows in the same file, with 8000 Hz" in done.stderr


def test_chunks_after_the_samples_of_a_wav_are_no_audio(address: str) -> None:
    data = bytearray(written("WAV", "PCM_16") + b"LIST\x05\x00\x00\x00INFOx\x00")
    data[4:8] = (len(data) - 8).to_bytes(4, "little")
    done = through_pipe("spot", "-", "--server", address, "--json", data=bytes(data))
    assert (done.returncode, done.stderr) == (0, "")
    assert json_lines(done.stdout)[-1]["audio_s"] == 4.0


TEXTS = {
    "text": (b"the quick brown fox\n" * 500, "this is a text file"),
    "short text": (b"hello world", "this is a text file"),
    "UTF-16": ("the quick brown fox\n" * 500).encode("utf-16"),
    "base64": (base64.encodebytes(samples().tobytes()), "this is a base64 text: decode it"),
    "base64 in one line": (base64.b64encode(samples().tobytes()), "this is a base64 text: decode it"),
    "data URL": (b"data:audio/wav;base64," + base64.b64encode(samples().tobytes()), "this is a base64 text"),
    "JSON": (b'{"audio": "' + base64.b64encode(samples().tobytes()) + b'"}', "this is a text file"),
    "ZIP": (b"PK\x03\x04" + samples().tobytes(), "this is a ZIP archive: unpack it"),
    "gzip": (b"\x1f\x8b\x08\x00" + samples().tobytes(), "this is a gzip archive: unpack it"),
    "NumPy": (b"\x93NUMPY\x01\x00" + samples().tobytes(), "this is a NumPy array"),
    "WebP": (b"RIFF\x00\x00\x00\x00WEBP" + samples().tobytes(), "this is a WebP image"),
    "RIFF": (
        b"RIFF\x00\x00\x00\x00sfbk" + samples().tobytes(),
        "this is a RIFF file, which is not supported",
    ),
    "IFF": (b"FORM\x00\x00\x00\x00ILBM" + samples().tobytes(), "this is an IFF file, which is not"),
}


MULAW = ("--encoding", "mulaw", "--rate", "8000")
# With an encoding of 8 bits, a text may be samples.
NO_AUDIO = [(name, ()) for name in TEXTS] + [(name, MULAW) for name in ("ZIP", "gzip", "WebP", "RIFF", "IFF")]


@pytest.mark.parametrize(("name", "form"), NO_AUDIO)
def test_what_is_no_audio_is_named_and_not_spotted(address: str, name: str, form: tuple[str, ...]) -> None:
    entry = TEXTS[name]
    data, sentence = entry if isinstance(entry, tuple) else (entry, "this is a text file")
    done = earmark("spot", "-", *form, "--server", address, stdin=data)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"earmark: standard input: {sentence}")


RAW = {
    "quiet noise": np.random.default_rng(1).integers(-2, 2, 16_000).astype("<i2").tobytes(),
    "minus one": b"\xff\xff" * 16_000,
    "MPEG sync": b"\xff\xfb\x90\x44" + samples().tobytes(),
    "ADTS sync": b"\xff\xf1\x50\x80" + samples().tobytes(),
    "AC-3 sync": b"\x0bw" + samples().tobytes(),
    "program": b"MZ" + samples().tobytes(),
    "constant letters": b"UU" * 16_000,
}


@pytest.mark.parametrize("name", RAW)
def test_raw_samples_that_begin_like_something_else_are_raw_samples(address: str, name: str) -> None:
    done = earmark("spot", "-", "--server", address, "--json", stdin=RAW[name])
    assert done.returncode == 0, done.stderr
    assert json_lines(done.stdout)[-1]["audio_s"] == pytest.approx(len(RAW[name]) / 2 / RATE_HZ, abs=1e-4)


@pytest.mark.parametrize(("encoding", "codes"), [("mulaw", b"vwxyz{|}~"), ("alaw", b"PQTUVWX")])
def test_quiet_samples_of_8_bits_are_no_text(address: str, encoding: str, codes: bytes) -> None:
    """Without a sound, and with an offset, all samples are negative and small: bytes of letters."""
    noise = np.random.default_rng(1).choice(np.frombuffer(codes, np.uint8), 8000).tobytes()
    done = earmark("spot", "-", "--encoding", encoding, "--rate", "8000", "--server", address, stdin=noise)
    assert (done.returncode, done.stderr) == (0, "")
    assert "1.00 s of audio, 0 detections" in done.stdout


def test_each_channel_of_a_pipe_is_not_read(tmp_path: Path) -> None:
    """The number of channels would have to be read before them."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for name, shown in (("-", "standard input (-)"), (str(pipe), f"{pipe} is a pipe, which")):
        done = earmark("spot", name, "--channel", "each")
        assert done.returncode == 2
        assert f"--channel each requires files: {shown} is read only once" in done.stderr


@pytest.mark.parametrize("command", ["spot", "classify", "plot", "check"])
def test_an_empty_name_is_reported(command: str, tmp_path: Path) -> None:
    out = ["-o", str(tmp_path / "page.html")] if command == "plot" else []
    done = earmark(command, "", *out)
    assert done.returncode == 1
    assert done.stderr == "earmark: the name of a recording is empty\n"


def test_a_stated_format_that_is_not_used_is_noticed(address: str) -> None:
    done = earmark("spot", "-", "--rate", "8000", "--server", address, stdin=written("WAV", "PCM_16"))
    assert done.returncode == 0
    assert "standard input: the format of raw samples is not used, because the WAV" in done.stderr


def test_the_format_of_raw_samples_is_for_standard_input(address: str, tmp_path: Path) -> None:
    recording, raw = tmp_path / "words.wav", tmp_path / "my words.pcm"
    recording.write_bytes(written("WAV", "PCM_16"))
    raw.write_bytes(samples().tobytes())
    done = earmark("spot", recording, "--encoding", "linear16", "--server", address)
    assert done.returncode == 0
    assert f"{recording}: the format of raw samples is not used, because the WAV" in done.stderr
    done = earmark("spot", raw, "--rate", "16000", "--server", address)
    assert done.returncode == 1
    assert "--rate, --encoding and --channels are for standard input" in done.stderr
    assert f"`earmark spot - < '{raw}'`" in done.stderr


def test_a_live_recording_does_not_delay_an_interrupt(address: str, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    command = [sys.executable, "-m", "earmark_cli", "spot", str(pipe), "--json", "--server", address]
    header = bytearray(written("WAV", "PCM_16"))
    header[40:44] = b"\xff" * 4
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, env=environment()) as process,
        pipe.open("wb", buffering=0) as writer,
    ):
        writer.write(header)
        assert process.stdout
        for _ in range(4):  # `started` and three words
            process.stdout.readline()
        process.send_signal(2)
        begin_s = time.monotonic()
        assert process.wait(timeout=30) == 130
        assert time.monotonic() - begin_s < 10


def piped(data: bytes) -> list[bytes]:
    """Return the blocks of raw samples from a pipe."""
    reading, writing = os.pipe()
    os.write(writing, data)
    os.close(writing)
    with os.fdopen(reading, "rb", buffering=0) as file:
        return list(RawInput(Pipe(file), AudioFormat(16_000)))


def test_raw_samples_are_passed_on_unchanged() -> None:
    assert b"".join(piped(b"\x01\x02\x03")) == b"\x01\x02\x03"


def test_empty_standard_input_is_reported(address: str) -> None:
    with pytest.raises(RecordingError, match="standard input contains no audio"):
        piped(b"")
    done = earmark("spot", "-", "--server", address)
    assert (done.returncode, done.stderr) == (1, "earmark: standard input contains no audio\n")


@pytest.mark.parametrize("buffering", [0, -1])
def test_a_pipe_that_another_process_has_made_non_blocking_is_read_to_its_end(buffering: int) -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    with os.fdopen(reading, "rb", buffering=buffering) as file, os.fdopen(writing, "wb", buffering=0) as end:
        blocks = iter(RawInput(Pipe(file), AudioFormat(16_000)))
        end.write(b"12")
        assert next(blocks) == b"12"
        writer = threading.Timer(0.05, lambda: (end.write(b"34"), end.close()))
        writer.start()  # until then, the pipe is empty
        assert b"".join(blocks) == b"34"
        writer.join()


def test_a_terminal_or_an_unreadable_standard_input_is_reported(tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    folder = os.open(tmp_path, os.O_RDONLY)
    saved = os.dup(0)
    try:
        for descriptor, sentence in [(theirs, "is a terminal"), (folder, "cannot be read: Is a directory")]:
            os.dup2(descriptor, 0)
            with pytest.raises(RecordingError, match=f"^standard input {sentence}"):
                open_source("-", None, block_s=1.0, channel=None)
    finally:
        os.dup2(saved, 0)
        for descriptor in (ours, theirs, folder, saved):
            os.close(descriptor)
