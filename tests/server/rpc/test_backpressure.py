"""Backpressure: a client that reads slowly or sends fast delays only itself."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from earmark.v1 import keyword_spotting_service_pb2_grpc as stubs
from grpc import StatusCode
from support.deadlines import DEADLINE_S
from support.server_rig import (
    audio,
    chunks,
    collect,
    config,
    detections,
    duration,
    failure,
    kinds,
    pcm,
    run,
    seconds,
    serving,
    silence,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from earmark_server.inference.stream_handle import StreamHandle
    from support.server_rig import Rig

HOUR = silence(3600)
EVERY_STEP = config(score_interval=duration(0.02))


@contextlib.asynccontextmanager
async def narrow(rig: Rig) -> AsyncIterator[Any]:
    """Yield a stub whose connection buffers little, so that a client that does not read soon blocks it."""
    options = (
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", 20_000),
    )
    async with grpc.aio.insecure_channel(rig.address, options=options) as channel:
        yield stubs.KeywordSpottingServiceStub(channel)


async def read_on(call: Any) -> list[Any]:
    """Read the remaining events of a stream."""
    events = []
    while (event := await call.read()) is not grpc.aio.EOF:
        events.append(event)
    return events


async def stalled(rig: Rig) -> StreamHandle:
    """Wait until the only stream of a server makes no more progress; return it."""
    processed = 0
    async with asyncio.timeout(DEADLINE_S):
        while True:
            await asyncio.sleep(0.3)
            for call in rig.server._admission.open_calls:
                if call.stream is not None:
                    if call.stream.session.processed_samples == processed > 0:
                        return call.stream
                    processed = call.stream.session.processed_samples


def test_a_slow_reader_delays_only_itself_and_loses_nothing(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path) as rig, narrow(rig) as stub:
            slow = stub.StreamingSpot(timeout=3 * DEADLINE_S)
            await slow.write(EVERY_STEP)
            await slow.write(silence(120))
            await slow.done_writing()
            stream = await stalled(rig)
            assert stream.session.processed_samples < 100 * 16_000
            assert len(stream._events) <= 256 + 60

            events = await collect(rig.stream(config(), *chunks(pcm())))
            assert len(detections(events)) == 4

            offsets = [
                seconds(event.scores.offset) for event in await read_on(slow) if kinds([event]) == ["scores"]
            ]
            assert offsets == pytest.approx([0.02 * i for i in range(1, 6001)])

    run(scenario)


def test_a_fast_sender_is_read_only_as_fast_as_inference(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path, max_pending_s=3) as rig, narrow(rig) as stub:
            # It reads nothing, so its events fill the buffers of the connection, and inference on it pauses.
            call = stub.StreamingSpot(timeout=DEADLINE_S)
            await call.write(EVERY_STEP)

            async def send() -> None:
                for _ in range(3600):
                    await call.write(audio(bytes(32_000)))

            sending = asyncio.ensure_future(send())
            stream = await stalled(rig)
            assert stream.pending_samples <= (3 + 1) * 16_000
            assert not sending.done()
            sending.cancel()
            call.cancel()
            await rig.used_slots(0)

    run(scenario)


def test_days_of_silence_delay_no_other_stream(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path) as rig:
            call = rig.stub.StreamingSpot(timeout=DEADLINE_S)
            await call.write(config())
            for _ in range(50):
                await call.write(HOUR)
            events = await collect(rig.stream(config(), *chunks(pcm())))
            assert len(detections(events)) == 4
            await call.done_writing()
            assert (await read_on(call))[-1].ended.audio_duration.seconds == 50 * 3600
            # The share of live streams did not grow with the silence.
            assert rig.server._engine.load.share < 0.5

    run(scenario)


def test_an_idle_stream_that_does_not_read_ends_too(
    tiny_model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its events cannot be sent before IDLE_STREAM, so it ends with SLOW_READER."""
    monkeypatch.setattr("earmark_server.inference.engine_thread.MAX_UNREAD_EVENTS", 10_000)

    async def scenario() -> None:
        limits = {"idle_timeout_s": 0.3, "slow_reader_timeout_s": 1.0, "max_pending_s": 120}
        async with serving(tiny_model_path, **limits) as rig, narrow(rig) as stub:
            call = stub.StreamingSpot(timeout=DEADLINE_S)
            await call.write(EVERY_STEP)
            await call.write(silence(100))
            await rig.used_slots(1)
            await rig.used_slots(0)
            assert (await failure(call)).reason == "SLOW_READER"

    run(scenario)


def test_a_stream_that_never_reads_ends_and_other_streams_continue(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path, slow_reader_timeout_s=0.5) as rig, narrow(rig) as stub:
            other = rig.stub.StreamingSpot(timeout=DEADLINE_S)
            await other.write(config())
            data = pcm()
            for request in chunks(data[:64_000]):
                await other.write(request)
            call = stub.StreamingSpot(timeout=DEADLINE_S)
            await call.write(EVERY_STEP)
            await call.write(HOUR)
            await rig.used_slots(2)
            await rig.used_slots(1)
            for request in chunks(data[64_000:]):
                await other.write(request)
            await other.done_writing()
            assert len(detections(await read_on(other))) == 4
            failed = await failure(call)
            assert (failed.code, failed.reason) == (StatusCode.DEADLINE_EXCEEDED, "SLOW_READER")
            assert "0.5 s" in failed.message

    run(scenario)
