"""`earmark listen` without a microphone. tests/integration/test_microphone.py has one."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest
from support.earmark_command import earmark, earmark_process, json_lines
from support.fake_sounddevice import DESK, SPEAKER, fake_sounddevice
from support.output_schema import check_line

if TYPE_CHECKING:
    from pathlib import Path


def test_a_missing_sounddevice_is_reported_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    done = earmark("listen")
    assert (done.returncode, done.stdout) == (1, "")
    assert "(the extra `mic`)" in done.stderr


def test_a_missing_portaudio_is_reported_with_a_remedy(tmp_path: Path) -> None:
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
def test_a_missing_or_busy_microphone_is_reported(
    monkeypatch: pytest.MonkeyPatch, devices: list[dict[str, Any]], args: list[str], sentence: str
) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", fake_sounddevice(devices))
    done = earmark(*args)
    assert (done.returncode, done.stdout) == (1, "")
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_recording_devices_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", fake_sounddevice([DESK, SPEAKER]))
    done = earmark("listen", "--list-devices")
    assert (done.returncode, done.stdout) == (0, "*   1  desk (2 channels, 48000 Hz)\n")
    (line,) = json_lines(earmark("listen", "--list-devices", "--json").stdout)
    check_line(line)
    del line["time"]
    assert line == {
        "type": "device",
        "index": 1,
        "name": "desk",
        "channels": 2,
        "sample_rate_hz": 48_000,
        "default": True,
    }
