"""`earmark check`."""

from __future__ import annotations

import re
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile
from support.earmark_command import RATE_HZ, earmark, json_lines, samples
from support.fake_sounddevice import DESK, fake_sounddevice
from support.output_schema import check_line

if TYPE_CHECKING:
    from pathlib import Path


def rows(output: str) -> dict[str, str]:
    """Return the rows of a report by their names."""
    return dict(re.findall(r"^  (\w+(?: \w+)?) {2,}(.+)$", output, re.MULTILINE))


def test_a_recording_is_described(tmp_path: Path) -> None:
    path = tmp_path / "opposite.wav"
    half = np.full(RATE_HZ, 0.5)
    soundfile.write(path, np.stack([half, -half], axis=1), RATE_HZ, subtype="PCM_24")
    done = earmark("check", path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{path}\n")
    found = rows(done.stdout)
    assert found["container"] == "WAV"
    assert found["codec"].startswith("Signed 24 bit PCM, decoded by libsndfile ")
    assert found["sample rate"] == "16000 Hz"
    assert found["channels"] == "2, which cancel each other"
    assert found["length"] == "1.00 s; the header states 1.00 s"
    assert found["level"] == "-6.0 dBFS, peak -6.0 dBFS"
    assert found["notice"].startswith("The channels cancel each other")
    assert "problem" not in found
    assert {"earmark", "client", "server", "ffmpeg", "microphone", "variables"} <= found.keys()
    assert len(done.stdout.splitlines()) <= 24, "a report fits one screen"


def test_clipping_and_a_dc_offset_are_measured(tmp_path: Path) -> None:
    path = tmp_path / "loud.wav"
    soundfile.write(path, np.tile([1.0, 0.5, 0.5, 0.5], RATE_HZ // 4), RATE_HZ, subtype="FLOAT")
    audio, warning, _ = json_lines(earmark("check", path, "--json").stdout)
    check_line(audio)
    assert audio["clipped_share"] == pytest.approx(0.25)
    assert audio["dc"] == pytest.approx(0.625)
    assert audio["peak_dbfs"] == pytest.approx(0, abs=0.01)
    assert warning["reason"] == "CLIPPED"


def test_silence_has_no_level(tmp_path: Path) -> None:
    path = tmp_path / "silence.flac"
    soundfile.write(path, np.zeros(RATE_HZ), RATE_HZ)
    assert rows(earmark("check", path).stdout)["level"] == "digital silence, peak digital silence"
    audio, *_ = json_lines(earmark("check", path, "--json").stdout)
    check_line(audio)
    assert (audio["level_dbfs"], audio["peak_dbfs"]) == (None, None)


def test_the_lengths_stated_and_found_of_a_truncated_recording_differ(tmp_path: Path) -> None:
    path = tmp_path / "cut.flac"
    soundfile.write(path, samples(), RATE_HZ)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    done = earmark("check", path)
    assert done.returncode == 1
    found = rows(done.stdout)
    assert found["length"].endswith("the header states 4.00 s")
    assert 1 < float(found["length"].split()[0]) < 3
    assert found["problem"].startswith("the recording is truncated")
    audio, *_, error, installation = json_lines(earmark("check", path, "--json").stdout)
    check_line(audio)
    check_line(error)
    check_line(installation)
    assert (audio["stated_s"], error["type"]) == (4.0, "error")


def test_the_length_that_a_wav_states_is_that_of_its_header(tmp_path: Path, recording: Path) -> None:
    data = recording.read_bytes()
    (tmp_path / "cut.wav").write_bytes(data[: 44 + 2 * RATE_HZ])
    found = rows(earmark("check", tmp_path / "cut.wav").stdout)
    assert found["length"] == "1.00 s; the header states 4.00 s"
    (tmp_path / "open.wav").write_bytes(data[:4] + bytes(4) + data[8:40] + bytes(4) + data[44:])
    assert rows(earmark("check", tmp_path / "open.wav").stdout)["length"] == "4.00 s"


def test_what_is_no_recording_is_reported_and_the_others_are_described(tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("no sound")
    soundfile.write(tmp_path / "words.ogg", samples(), RATE_HZ)
    done = earmark("check", tmp_path / "text.wav", tmp_path / "words.ogg", tmp_path / "absent.wav")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"earmark: {tmp_path}/text.wav: this is a text file: give a recording",
        f"earmark: {tmp_path}/absent.wav: No such file or directory",
    ]
    assert rows(done.stdout)["codec"].startswith("Vorbis")


def test_standard_input_is_described(recording: Path) -> None:
    done = earmark("check", "-", stdin=recording.read_bytes())
    assert done.returncode == 0
    assert rows(done.stdout)["length"] == "4.00 s; the header states 4.00 s"


def test_the_installation_is_described_without_the_values_of_variables() -> None:
    done = earmark("check", EARMARK_TOKEN="secret", https_proxy="http://user:secret@proxy")
    assert done.returncode == 0
    assert "secret" not in done.stdout
    assert {"EARMARK_TOKEN", "https_proxy"} <= set(rows(done.stdout)["variables"].split(", "))
    (line,) = json_lines(earmark("check", "--json").stdout)
    check_line(line)
    assert line["client"]["numpy"] == np.__version__
    assert line["extras"]["server"]["onnxruntime"]


def test_the_microphone_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    def stream(*, callback: Any, finished_callback: Any, **_: object) -> SimpleNamespace:
        def start() -> None:
            tone = (8192 * np.sign(np.sin(np.arange(4800)))).astype("<i2").tobytes()
            for _ in range(3):
                callback(tone, 4800, None, None)

        return SimpleNamespace(
            start=start, close=lambda **_: None, stop=finished_callback, abort=lambda: None
        )

    fake = fake_sounddevice([DESK])
    fake.RawInputStream = stream
    fake.CallbackStop = type("CallbackStop", (Exception,), {})
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    done = earmark("check", "--mic", "--duration", "0.2")
    assert (done.returncode, done.stderr) == (0, "")
    found = rows(done.stdout)
    assert done.stdout.startswith("desk\n")
    assert found["sample rate"] == "48000 Hz"
    assert found["level"] == "-12.0 dBFS, peak -12.0 dBFS"
    assert found["microphone"] == "desk (2 channels, 48000 Hz)"


def test_a_missing_microphone_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    done = earmark("check", "--mic")
    assert done.returncode == 1
    assert done.stderr.startswith("earmark: microphone: ")
    assert "(the extra `mic`)" in done.stderr
    assert "(the extra `mic`)" in rows(done.stdout)["microphone"]
