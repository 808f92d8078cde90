"""A fake of the package sounddevice, which behaves as the real one where hardware is missing or busy."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

DESK = {"index": 1, "name": "desk", "max_input_channels": 2, "default_samplerate": 48_000.0}
SPEAKER = {"index": 2, "name": "speaker", "max_input_channels": 0, "default_samplerate": 48_000.0}


def fake_sounddevice(devices: list[dict[str, Any]]) -> SimpleNamespace:
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
