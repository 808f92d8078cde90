"""`earmark listen` where there is no microphone; with one, see tests/integration/test_microphone.py."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest
from earmark_client import Microphone, Silence
from support.earmark_command import earmark, earmark_process, json_lines

SCHEMA = Path(__file__).parents[2] / "docs" / "output.schema.json"
DESK = {"index": 1, "name": "desk", "max_input_channels": 2, "default_samplerate": 48_000.0}
SPEAKER = {"index": 2, "name": "speaker", "max_input_channels": 0, "default_samplerate": 48_000.0}


def _sounddevice(devices: list[dict[str, Any]]) -> SimpleNamespace:
    """Make a sounddevice that behaves as the real one where hardware is missing or busy."""

    class PortAudioError(Exception):
        pass

    def query_devices(device: object = None, kind: str | None = None) -> Any:
        if device is None and kind is None:
            return devices
        if device is None and devices:
            return devices[0]
        found = [known for known in devices if device in {known["index"], known["name"]}]
        if not found:
            raise (
                PortAudioError("Error querying device -1")
                if device is None
                else ValueError("No input device")
            )
        return found[0]

    def raw_input_stream(**_: object) -> None:
        raise PortAudioError("busy")

    return SimpleNamespace(
        PortAudioError=PortAudioError, query_devices=query_devices, RawInputStream=raw_input_stream
    )


def test_without_sounddevice_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    done = earmark("listen")
    assert (done.returncode, done.stdout) == (1, "")
    assert "pip install 'earmark[mic]'" in done.stderr


def test_without_portaudio_it_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')\n")
    done = earmark_process("listen", PYTHONPATH=str(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    assert "PortAudio library not found" in done.stderr
    assert "apt install libportaudio2" in done.stderr


@pytest.mark.parametrize(
    ("devices", "args", "sentence"),
    [
        ([], ["listen"], "there is no microphone"),
        ([SPEAKER], ["listen"], "there is no microphone"),
        ([], ["listen", "--list-devices"], "no recording device"),
        ([DESK], ["listen", "--device", "kitchen"], "'kitchen'"),
        ([DESK], ["listen", "--device", "7"], "7"),
        ([DESK], ["listen"], "'desk' cannot be opened: busy"),
    ],
)
def test_a_microphone_that_is_not_there_is_said(
    monkeypatch: pytest.MonkeyPatch, devices: list[dict[str, Any]], args: list[str], sentence: str
) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", _sounddevice(devices))
    done = earmark(*args)
    assert (done.returncode, done.stdout) == (1, "")
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1


class _Stream:
    """A microphone's stream that records when the test says so."""

    def __init__(self, **settings: Any) -> None:
        self.callback = settings["callback"]
        self.finished = settings["finished_callback"]
        self.block_samples = settings["blocksize"]

    def start(self) -> None:
        pass

    def close(self) -> None:
        self.finished()

    def record(self, blocks: int) -> None:
        for _ in range(blocks):
            self.callback(bytes(2 * self.block_samples), self.block_samples, None, None)


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> list[_Stream]:
    opened: list[_Stream] = []
    sounddevice = _sounddevice([DESK])
    sounddevice.RawInputStream = lambda **settings: opened.append(_Stream(**settings)) or opened[-1]
    monkeypatch.setitem(sys.modules, "sounddevice", sounddevice)
    return opened


def test_audio_that_nobody_takes_becomes_silence_of_the_same_length(streams: list[_Stream]) -> None:
    """Offsets stay true: what is lost is lost, and is not left out."""
    with Microphone() as microphone:
        (stream,) = streams
        stream.record(150)
        blocks = iter(microphone)
        taken = [next(blocks) for _ in range(100)]
        stream.record(1)
        taken += [next(blocks), next(blocks)]
        microphone.stop()
        assert list(blocks) == []
    lengths_s = [one.seconds if isinstance(one, Silence) else len(one) / 2 / 48_000 for one in taken]
    assert sum(lengths_s) == pytest.approx(15.1)
    assert [type(one) for one in taken[-2:]] == [Silence, bytes]
    assert microphone.lost_s == pytest.approx(5.0)


def test_a_duration_is_kept_to_the_block(streams: list[_Stream]) -> None:
    with Microphone(duration_s=0.3) as microphone:
        streams[0].record(10)
        assert len(list(microphone)) == 3


def test_the_devices_that_can_record_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", _sounddevice([DESK, SPEAKER]))
    done = earmark("listen", "--list-devices")
    assert (done.returncode, done.stdout) == (0, "*   1  desk (2 channels, 48000 Hz)\n")
    (line,) = json_lines(earmark("listen", "--list-devices", "--json").stdout)
    assert line == {
        "type": "device",
        "index": 1,
        "name": "desk",
        "channels": 2,
        "sample_rate_hz": 48_000,
        "default": True,
    }
    jsonschema.validate(line, json.loads(SCHEMA.read_text()))
