"""Positions are sample counts on both threads: they agree, and do not drift, whatever the silences are."""

from __future__ import annotations

import asyncio
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from earmark_server.inference import pending_audio
from earmark_server.inference.engine import Engine
from earmark_server.inference.events import Failed, Finished, Scores
from earmark_server.inference.session import SpottingSession
from earmark_server.rpc.audio_forwarder import AudioForwarder
from earmark_server.rpc.requests import AudioChunk, DurationField, Silence
from earmark_server.settings import Settings
from earmark_spotter import AudioFormat, Detection, Encoding, SpotterModel, resolve_settings
from earmark_spotter.sample_time import NANOSECONDS, nearest_sample, offset_ns
from hypothesis import given, settings
from hypothesis import strategies as st
from support import tiny_model
from support.deadlines import DEADLINE_S
from support.server_rig import run

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from earmark_server.inference.events import Event
    from earmark_server.inference.stream_handle import StreamHandle
    from earmark_server.rpc.requests import StreamRequest


@pytest.fixture(autouse=True, scope="module")
def _model_file(tiny_model_path: Path) -> None:
    model.path = tiny_model_path  # type: ignore[attr-defined]


@cache
def model() -> SpotterModel:
    return SpotterModel.load(model.path)  # type: ignore[attr-defined]


class FakeReader:
    """Returns requests from a list."""

    is_reading = False

    def __init__(self, requests: Iterable[StreamRequest]) -> None:
        self._requests = iter(requests)

    async def read(self) -> StreamRequest | None:
        return next(self._requests, None)


def silence(duration_ns: int) -> Silence:
    return Silence(DurationField(*divmod(duration_ns, NANOSECONDS)))


async def stream(
    rate_hz: int, requests: Iterable[StreamRequest], *, max_pending_ns: int = 2 * 10**9, **intervals: int
) -> tuple[list[Event], StreamHandle]:
    """Send requests through a forwarder and an engine; return the events and the closed handle."""
    engine = Engine()
    engine.start()
    audio_format = AudioFormat(Encoding.LINEAR16, rate_hz)
    session = SpottingSession(model(), audio_format, resolve_settings(model().metadata), **intervals)
    events: list[Event] = []
    try:
        async with asyncio.timeout(DEADLINE_S):
            with engine.open_stream(session, max_pending_ns) as handle:
                reader: Any = FakeReader(requests)
                forwarder = AudioForwarder(reader, handle, audio_format, Settings(max_rate=0), start_ns=0)
                with forwarder.running():
                    while not (events and isinstance(events[-1], Finished | Failed)):
                        events += await handle.events()
    finally:
        await engine.stop()
    return events, handle


def comparable(events: list[Event]) -> list[Any]:
    """Convert events to values that can be compared, without progress, which depends on timing."""
    return [
        (event.id, event.start_sample, event.end_sample)
        if isinstance(event, Detection)
        else event.offset_ns
        if isinstance(event, Scores)
        else event
        for event in events
        if isinstance(event, Detection | Scores | Finished | Failed)
    ]


def scores_of(events: list[Event]) -> np.ndarray:
    rows = [event.values for event in events if isinstance(event, Scores)]
    return np.array(rows).reshape(len(rows), len(model().metadata.labels))


def linear16(samples: np.ndarray) -> bytes:
    return (samples * 32767).astype("<i2").tobytes()


@settings(max_examples=40, deadline=None)
@given(
    rate_hz=st.sampled_from([8000, 11_025, 16_000, 44_100, 48_000]),
    parts=st.lists(
        st.one_of(
            st.tuples(st.just("silence"), st.integers(0, 2 * NANOSECONDS)),
            st.tuples(st.just("silence"), st.sampled_from([62_000, 31_300, 10_030_000, 20_000_000])),
            st.tuples(st.just("audio"), st.integers(0, 30_000)),
        ),
        max_size=12,
    ),
)
def test_any_mix_of_silence_and_audio_has_the_events_of_the_same_samples(
    rate_hz: int, parts: list[tuple[str, int]]
) -> None:
    words = tiny_model.recording([(0.1, "low"), (1.2, "mid"), (2.4, "high")], 4, rate_hz=rate_hz)
    data, start = linear16(words), 0
    requests: list[StreamRequest] = []
    samples = b""
    for kind, length in parts:
        if kind == "silence":
            requests.append(silence(length))
            samples += bytes(2 * nearest_sample(length, rate_hz))
        else:
            chunk = data[start : start + 2 * length]
            start += len(chunk)
            requests.append(AudioChunk(chunk))
            samples += chunk
    intervals = {"score_interval_ns": 100_000_000, "progress_interval_ns": NANOSECONDS}

    async def scenario() -> None:
        events, handle = await stream(rate_hz, requests, **intervals)
        expected, _ = await stream(rate_hz, [AudioChunk(samples)], **intervals)
        assert comparable(events) == comparable(expected)
        np.testing.assert_allclose(scores_of(events), scores_of(expected), atol=1e-4)
        # The event loop and the engine have counted the same.
        assert handle.sent_samples == len(samples) // 2
        assert isinstance(events[-1], Finished)
        assert events[-1].audio_ns == offset_ns(len(samples) // 2, rate_hz) == handle.sent_ns
        assert handle.pending_samples <= 0

    run(scenario)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("duration_ns", "rate_hz"),
    [(10_030_000, 16_000), (20_000_000, 11_025), (62_000, 8000), (31_300, 16_000), (1, 192_000)],
)
def test_silences_of_a_fraction_of_a_sample_never_stop_a_stream(duration_ns: int, rate_hz: int) -> None:
    count = 10_000

    async def scenario() -> None:
        # 20 ms may be pending: a drift of that much would stop the stream for ever.
        requests = [silence(duration_ns)] * count
        events, handle = await stream(rate_hz, requests, max_pending_ns=20_000_000)
        assert handle.sent_samples == count * nearest_sample(duration_ns, rate_hz)
        assert isinstance(events[-1], Finished)

    run(scenario)


@pytest.mark.slow
@pytest.mark.parametrize("duration_ns", [31_300, 62_500, 93_700])
def test_silences_delay_no_later_event(duration_ns: int) -> None:
    async def scenario() -> None:
        engine = Engine()
        engine.start()
        audio_format = AudioFormat(Encoding.LINEAR16, 16_000)
        session = SpottingSession(
            model(), audio_format, resolve_settings(model().metadata), score_interval_ns=20_000_000
        )

        with engine.open_stream(session, 2 * 10**9) as handle:
            for _ in range(20_000):
                handle.send(pending_audio.Silence(nearest_sample(duration_ns, 16_000)))
            step = b"\1\0" * 320
            # Each step of audio brings one more frame of scores, without waiting for more audio.
            handle.send(bytes(2 * (-handle.sent_samples % 320)))
            frames, expected = 0, handle.sent_samples // 320
            async with asyncio.timeout(DEADLINE_S):
                for _ in range(20):
                    while frames < expected:
                        frames += sum(isinstance(event, Scores) for event in await handle.events())
                    assert frames == expected
                    handle.send(step)
                    expected += 1
        await engine.stop()

    run(scenario)


def test_a_pending_limit_below_one_step_does_not_stop_a_stream() -> None:
    async def scenario() -> None:
        data = linear16(tiny_model.recording([(0.1, "low")], 1))
        chunks = [AudioChunk(data[i : i + 100]) for i in range(0, len(data), 100)]
        events, _ = await stream(16_000, chunks, max_pending_ns=1)
        assert sum(isinstance(event, Detection) for event in events) == 1

    run(scenario)
