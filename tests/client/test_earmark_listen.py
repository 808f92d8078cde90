"""`earmark listen` where there is no microphone; with one, see tests/integration/test_microphone.py."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from command_line import earmark, earmark_process, json_lines

if TYPE_CHECKING:
    from pathlib import Path

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
        ([], ["listen", "--list-devices"], "no device that can record"),
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
