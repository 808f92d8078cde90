"""Silence through the server: at most one receptive field of inference, and no share of the load."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from earmark.v1 import keyword_spotting_pb2 as messages
from earmark_spotter import SpotterModel
from support.deadlines import DEADLINE_S
from support.server_rig import audio, chunks, collect, config, detections, kinds, pcm, run, serving, silence

if TYPE_CHECKING:
    from pathlib import Path

HOUR = silence(3600)
DATA = pcm()


class InferenceCounter:
    """Counts the samples that models process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.samples = 0
        step = SpotterModel.step

        def counting(model: SpotterModel, samples: Any, state: Any) -> Any:
            self.samples += samples.size
            return step(model, samples, state)

        monkeypatch.setattr(SpotterModel, "step", counting)


@pytest.fixture
def inference(monkeypatch: pytest.MonkeyPatch) -> InferenceCounter:
    return InferenceCounter(monkeypatch)


def test_hours_of_silence_cost_one_receptive_field_of_inference(
    tiny_model_path: Path, inference: InferenceCounter
) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path) as rig:
            inference.samples = 0
            events = await collect(rig.stream(config(), *chunks(DATA), *[HOUR] * 10, *chunks(DATA)))
            words = [one.keyword for one in detections(events)]
            assert words == ["low", "mid", "high", "low"] * 2
            assert events[-1].ended.audio_duration.seconds == 36_000 + 2 * len(DATA) // 32_000
            # The audio, and after each part of it the receptive field of 70 ms, up to 1 s in one inference.
            assert inference.samples <= 2 * (len(DATA) // 2 + 16_000)
            # An hour is one report of progress, not 3,600.
            assert kinds(events).count("progress") < 40

    run(scenario)


def test_zeros_sent_as_audio_cost_one_receptive_field_of_inference(
    tiny_model_path: Path, inference: InferenceCounter
) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path) as rig:
            inference.samples = 0
            zeros = [audio(bytes(32_000))] * 120
            events = await collect(rig.stream(config(), *chunks(DATA), *zeros, *chunks(DATA)))
            assert len(detections(events)) == 8
            assert inference.samples <= 2 * (len(DATA) // 2 + 16_000)

    run(scenario)


def test_scores_of_silence_are_reported_without_inference(
    tiny_model_path: Path, inference: InferenceCounter
) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path) as rig:
            inference.samples = 0
            request = config(score_interval=silence(0.5).silence)
            events = await collect(rig.stream(request, silence(60)))
            frames = [event.scores for event in events if kinds([event]) == ["scores"]]
            assert [frame.offset.ToMilliseconds() for frame in frames] == list(range(500, 60_001, 500))
            assert all(frame.scores == frames[0].scores for frame in frames)
            assert inference.samples == 0

    run(scenario)


@pytest.mark.slow
def test_streams_of_silence_do_not_count_as_load(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path) as rig:

            async def attack() -> None:
                call = rig.stub.StreamingSpot(timeout=DEADLINE_S)
                await call.write(config())
                with_reader = asyncio.ensure_future(read_all(call))
                try:
                    while True:
                        await call.write(HOUR)
                finally:
                    with_reader.cancel()
                    call.cancel()

            attacks = [asyncio.ensure_future(attack()) for _ in range(4)]
            await asyncio.sleep(1.2)  # more than the window of the load
            load = rig.server._engine.load
            assert load.share < 0.1
            for _ in range(10):
                events = await collect(rig.stream(config(), *chunks(DATA)))
                assert len(detections(events)) == 4
                assert load.share < 0.1
            for task in attacks:
                task.cancel()

    run(scenario)


async def read_all(call: Any) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass


def test_a_recording_in_long_messages_does_not_count_as_load(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path, max_stream_message_bytes=16 << 20) as rig:
            mulaw = messages.AudioFormat(encoding=messages.ENCODING_MULAW, sample_rate_hertz=8000)
            # Seventeen messages of two minutes, which take the tiny model a few seconds.
            call = rig.stream(config(audio_format=mulaw), *[audio(b"\x11\x91" * 500_000)] * 17)
            reading = asyncio.ensure_future(collect(call))
            engine = rig.server._engine
            async with asyncio.timeout(DEADLINE_S):
                while engine.counters.processed_audio_s < 60:
                    assert not reading.done()
                    await asyncio.sleep(0.01)
            shares = []
            for _ in range(10):
                await asyncio.sleep(0.1)
                shares.append(engine.load.share)
                assert engine.pending_bytes <= 2 * (8 << 20)
            assert max(shares) < 0.1
            call.cancel()
            reading.cancel()

    run(scenario)
