"""The microphone, with a fake of the package sounddevice."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from earmark_client import Microphone, Silence
from support.fake_sounddevice import DESK, fake_sounddevice


class _Stream:
    """A microphone's stream that records when the test calls `record`."""

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
    sounddevice = fake_sounddevice([DESK])
    sounddevice.RawInputStream = lambda **settings: opened.append(_Stream(**settings)) or opened[-1]
    monkeypatch.setitem(sys.modules, "sounddevice", sounddevice)
    return opened


def test_unread_audio_is_replaced_by_silence_of_the_same_length(streams: list[_Stream]) -> None:
    """Offsets stay correct."""
    with Microphone() as microphone:
        (stream,) = streams
        stream.record(150)
        blocks = iter(microphone)
        received = [next(blocks) for _ in range(100)]
        stream.record(1)
        received += [next(blocks), next(blocks)]
        microphone.stop()
        assert list(blocks) == []
    lengths_s = [one.seconds if isinstance(one, Silence) else len(one) / 2 / 48_000 for one in received]
    assert sum(lengths_s) == pytest.approx(15.1)
    assert [type(one) for one in received[-2:]] == [Silence, bytes]
    assert microphone.lost_s == pytest.approx(5.0)


def test_the_microphone_stops_after_its_duration(streams: list[_Stream]) -> None:
    with Microphone(duration_s=0.3) as microphone:
        streams[0].record(10)
        assert len(list(microphone)) == 3
