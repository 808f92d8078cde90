"""`earmark listen` where there is no microphone; with one, see tests/integration/test_microphone.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from command_line import earmark, json_lines, run_python

if TYPE_CHECKING:
    from pathlib import Path


def test_without_sounddevice_listening_says_what_to_do() -> None:
    done = run_python(
        "import sys\n"
        "sys.modules['sounddevice'] = None\n"
        "from earmark_client.__main__ import main\n"
        "sys.exit(main(['listen']))"
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "pip install 'earmark[mic]'" in done.stderr


def test_without_portaudio_listening_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')\n")
    done = earmark("listen", PYTHONPATH=str(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    assert "PortAudio library not found" in done.stderr
    assert "apt install libportaudio2" in done.stderr


@pytest.mark.parametrize(
    ("devices", "args", "sentence"),
    [
        ("[]", ["listen"], "there is no microphone"),
        ("[]", ["listen", "--list-devices"], "no device that can record"),
        ("[MICROPHONE]", ["listen", "--device", "kitchen"], "'kitchen'"),
        ("[MICROPHONE]", ["listen", "--device", "7"], "7"),
        ("[MICROPHONE]", ["listen"], "'desk microphone' cannot be opened: busy"),
    ],
)
def test_a_microphone_that_is_not_there_is_said(
    tmp_path: Path, devices: str, args: list[str], sentence: str
) -> None:
    """With a sounddevice that behaves as the real one where hardware is missing or busy."""
    (tmp_path / "sounddevice.py").write_text(
        "class PortAudioError(Exception): pass\n"
        "MICROPHONE = dict(index=0, name='desk microphone',"
        " max_input_channels=1, default_samplerate=48000.0)\n"
        f"DEVICES = {devices}\n"
        "def query_devices(device=None, kind=None):\n"
        "    if device is None and kind is None: return DEVICES\n"
        "    if device is None and DEVICES: return DEVICES[0]\n"
        "    raise ValueError(f'No input device matching {device!r}') if device else PortAudioError('-1')\n"
        "def RawInputStream(**_): raise PortAudioError('busy')\n"
    )
    done = earmark(*args, PYTHONPATH=str(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_devices_that_can_record_are_listed(tmp_path: Path) -> None:
    (tmp_path / "sounddevice.py").write_text(
        "class PortAudioError(Exception): pass\n"
        "ONE = dict(index=1, name='desk', max_input_channels=2, default_samplerate=48000.0)\n"
        "OTHER = dict(index=2, name='speaker', max_input_channels=0, default_samplerate=48000.0)\n"
        "def query_devices(device=None, kind=None): return ONE if kind else [ONE, OTHER]\n"
    )
    done = earmark("listen", "--list-devices", PYTHONPATH=str(tmp_path))
    assert (done.returncode, done.stdout) == (0, "*   1  desk (2 channels, 48000 Hz)\n")
    (line,) = json_lines(earmark("listen", "--list-devices", "--json", PYTHONPATH=str(tmp_path)).stdout)
    assert line == {
        "type": "device",
        "index": 1,
        "name": "desk",
        "channels": 2,
        "sample_rate_hz": 48_000,
        "default": True,
    }
