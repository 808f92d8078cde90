"""Pace: a stream is live if its audio arrives no faster than it is spoken, however it arrives."""

from __future__ import annotations

import pytest
from earmark_server.inference.pace import Pace


class Simulation:
    """A stream whose pace is updated as the engine does, on a clock of its own."""

    def __init__(self) -> None:
        self.pace = Pace()
        self.now_s = self.pace._updated_s
        self.sent_s = self.processed_s = 0.0

    def run(self, seconds: float, *, chunk_s: float, interval_s: float, speed: float = 1e9) -> list[bool]:
        """Send a chunk at each interval; the engine processes `speed` times real time; return `is_live`."""
        live = []
        for _ in range(round(seconds / interval_s)):
            self.sent_s += chunk_s
            self.pace.update(self.now_s, self.sent_s, self.sent_s - self.processed_s, has_ended=False)
            live.append(self.pace.is_live)
            self.processed_s = min(self.sent_s, self.processed_s + speed * interval_s)
            self.now_s += interval_s
        return live


@pytest.mark.parametrize("chunk_s", [0.02, 0.1, 0.25])
def test_speech_is_live(chunk_s: float) -> None:
    assert all(Simulation().run(60, chunk_s=chunk_s, interval_s=chunk_s))


def test_speech_stays_live_while_the_server_falls_behind() -> None:
    assert all(Simulation().run(60, chunk_s=0.1, interval_s=0.1, speed=0.5))


def test_speech_stays_live_after_a_pause_of_the_network() -> None:
    simulation = Simulation()
    simulation.run(5, chunk_s=0.1, interval_s=0.1)
    simulation.now_s += 1
    simulation.sent_s += 0.9
    assert all(simulation.run(5, chunk_s=0.1, interval_s=0.1))


@pytest.mark.parametrize(
    ("chunk_s", "interval_s", "speed"),
    [
        (1.0, 0.01, 1e9),  # a recording in short messages
        (0.02, 0.01, 1e9),  # twice as fast as speech
        (2100.0, 2.0, 1000.0),  # a recording in messages of 16 MB, one after another is processed
        (3600.0, 0.001, 1e9),  # an hour of silence in each message
        (3600.0, 1.0, 1e9),  # the same, at a slow pace
    ],
)
def test_audio_that_is_faster_than_speech_is_never_live(
    chunk_s: float, interval_s: float, speed: float
) -> None:
    simulation = Simulation()
    simulation.run(1, chunk_s=chunk_s, interval_s=interval_s, speed=speed)
    assert not any(simulation.run(20, chunk_s=chunk_s, interval_s=interval_s, speed=speed))


def test_a_long_message_is_not_live_while_it_is_processed() -> None:
    simulation = Simulation()
    simulation.sent_s = 2100
    # Nothing more arrives, and the engine takes two seconds for it.
    assert not any(simulation.run(2, chunk_s=0, interval_s=0.01, speed=1000))


def test_a_resumed_stream_is_live_again_soon_after_its_replay() -> None:
    simulation = Simulation()
    simulation.sent_s = 10
    live = simulation.run(10, chunk_s=0.1, interval_s=0.1, speed=100)
    assert not live[0]
    assert all(live[25:])


def test_the_last_audio_is_not_live() -> None:
    pace = Pace()
    pace.update(pace._updated_s + 1, 1.0, 0.0, has_ended=True)
    assert not pace.is_live
