"""The memory of pending audio: its bytes are counted over all streams, and it is decoded only as needed."""

from __future__ import annotations

import asyncio
import tracemalloc
from typing import TYPE_CHECKING

import numpy as np
import pytest
from earmark_server.inference.engine import Engine
from earmark_server.inference.pending_audio import End, PendingAudio, Silence
from earmark_server.inference.session import SpottingSession
from earmark_spotter import AudioFormat, Encoding, SpotterModel, StreamState, resolve_settings
from support.deadlines import DEADLINE_S
from support.fake_engine import Bench, events_of, samples, until
from support.server_rig import run

if TYPE_CHECKING:
    from pathlib import Path

MULAW = AudioFormat(Encoding.MULAW, 8000)


@pytest.fixture(scope="module")
def tiny(tiny_model_path: Path) -> SpotterModel:
    return SpotterModel.load(tiny_model_path)


def test_a_long_message_occupies_its_own_size_only(tiny: SpotterModel) -> None:
    message = b"\x01" * (16 << 20)  # 35 minutes
    tracemalloc.start()
    try:
        session = SpottingSession(tiny, MULAW, resolve_settings(tiny.metadata))
        session.pending.append(message)
        for _ in range(50):
            steps = session.prepare(1.0)
            session.consume(steps)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 1 << 20


def test_released_bytes_are_those_of_the_decoded_messages(tiny: SpotterModel) -> None:
    state = StreamState(tiny, MULAW, resolve_settings(tiny.metadata))
    pending = PendingAudio(state.audio, MULAW)
    pending.append(b"\x01" * 100)
    pending.append(b"\x01" * 4000)
    pending.append(Silence(8000))
    pending.append(np.full(5000, 0.1, np.float32))
    pending.append(End.OF_AUDIO)
    released = []
    for _ in range(1000):
        pending.decode(0.02)
        steps = state.steps_to_run(1)
        released.append(pending.released_bytes)
        if steps:
            state.consume(steps)
        elif state.quiet_steps:
            state.consume_silence(state.quiet_steps)
        else:
            break
    assert released[0] == 100
    assert released == sorted(released)
    assert set(released) == {100, 4100, 4100 + 20_000}


def test_all_streams_together_hold_a_bounded_number_of_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("earmark_server.inference.stream_handle._SMALL_BYTES", 40)

    async def scenario() -> None:
        async with Bench(Engine(max_pending_bytes=4000)) as bench:
            await bench.block()
            streams = [bench.open() for _ in range(10)]
            sent = dict.fromkeys(streams, 0)
            for _ in range(100):
                for stream in streams:
                    if not stream.at_capacity:
                        stream.send(samples(1.0, 10))
                        sent[stream] += 10
            # A little for each stream, and the rest until the limit.
            assert 4000 <= bench.engine.pending_bytes <= 4000 + 10 * 80
            waiting = [asyncio.ensure_future(stream.wait_for_capacity()) for stream in streams]
            bench.model.go.set()
            async with asyncio.timeout(DEADLINE_S):
                await asyncio.gather(*waiting)
            for stream in streams:
                await events_of(stream, sent[stream])
            await until(lambda: bench.engine.pending_bytes == 0)

    run(scenario)


def test_a_stream_waits_for_the_bytes_of_another_one_until_that_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("earmark_server.inference.stream_handle._SMALL_BYTES", 40)

    async def scenario() -> None:
        async with Bench(Engine(max_pending_bytes=4000)) as bench:
            large, other = bench.open(), bench.open()
            await until(lambda: bench.engine.counters.open_slots == 2)
            for stream in (large, other):
                stream.session.due_samples = 10**9  # never due
            large.send(samples(1.0, 2000))
            other.send(samples(1.0, 20))
            assert large.at_capacity
            assert other.at_capacity
            # A stream that holds little is not affected.
            assert not bench.open().at_capacity
            large.close()
            await until(lambda: bench.engine.pending_bytes == 80)
            assert not large.session.pending  # freed, although something may still refer to the stream
            assert not other.at_capacity
            other.close()
            other.send(samples(1.0, 20))  # nothing is counted after the end
            await until(lambda: bench.engine.pending_bytes == 0)

    run(scenario)
