"""The microphone, with a fake of the package sounddevice."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from earmark_client import Microphone, MicrophoneError, Silence
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
    sounddevice._terminate = sounddevice._initialize = lambda: None
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


def test_a_microphone_that_is_pulled_out_is_waited_for(
    streams: list[_Stream], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Silence is in its place, so that offsets stay correct."""
    monkeypatch.setattr("earmark_client.microphone._RETRY_S", 0.05)
    connected: list[bool] = []
    with Microphone(on_connection=connected.append) as microphone:
        streams[0].record(1)
        streams[0].finished()
        blocks = iter(microphone)
        assert isinstance(next(blocks), bytes)
        lost = next(blocks)
        assert isinstance(lost, Silence)
        assert lost.seconds == pytest.approx(0.05, abs=0.04)
        assert connected == [False]
        monkeypatch.setattr(_Stream, "start", lambda stream: stream.record(2))
        assert isinstance(next(blocks), bytes)
        assert connected == [False, True]
        microphone.stop()


def test_without_a_callback_a_microphone_that_is_pulled_out_is_an_error(streams: list[_Stream]) -> None:
    with Microphone() as microphone:
        streams[0].finished()
        with pytest.raises(MicrophoneError, match="'desk' has stopped: check that it is connected"):
            list(microphone)


def test_the_microphone_stops_after_its_duration(streams: list[_Stream]) -> None:
    with Microphone(duration_s=0.3) as microphone:
        streams[0].record(10)
        assert len(list(microphone)) == 3
