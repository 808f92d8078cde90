"""The limits on a client, while a stream of another one continues."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from earmark.v1 import keyword_spotting_service_pb2 as rpcs
from grpc import StatusCode
from support.deadlines import DEADLINE_S
from support.server_rig import (
    LINEAR16,
    WORDS,
    Rig,
    audio,
    beside,
    chunks,
    collect,
    config,
    detections,
    failure,
    kinds,
    pcm,
    run,
    seconds,
    serving,
    silence,
)

if TYPE_CHECKING:
    from pathlib import Path


async def open_stream(rig: Rig) -> Any:
    call = rig.stub.StreamingSpot(timeout=DEADLINE_S)
    await call.write(config())
    assert kinds([await call.read()]) == ["started"]
    return call


def test_a_client_above_its_limit_of_streams_is_rejected(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path, max_streams_per_client=3) as rig, beside(rig):
            first, _ = [await open_stream(rig) for _ in range(2)]
            failed = await failure(rig.stream(config()))
            assert (failed.code, failed.reason) == (StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_STREAMS")
            assert failed.quotas == ["clientip:127.0.0.1"]
            assert failed.retry_s
            first.cancel()
            await rig.used_slots(2)
            assert kinds(await collect(rig.stream(config()))) == ["started", "ended"]

    run(scenario)


def test_a_client_above_its_limit_of_recordings_is_rejected_and_others_are_not(
    tiny_model_path: Path, tmp_path: Path
) -> None:
    secrets = {"one": "a" * 40, "other": "b" * 40}
    lines = [f"{name} {hashlib.sha256(secret.encode()).hexdigest()}" for name, secret in secrets.items()]
    path = tmp_path / "tokens"
    path.write_text("\n".join(lines))

    async def scenario() -> None:
        async with serving(tiny_model_path, max_calls_per_client=3, token_file=str(path)) as rig:
            one, other = ((("authorization", f"Bearer {secret}"),) for secret in secrets.values())
            spot = "/earmark.v1.KeywordSpottingService/Spot"
            silent = [rig.channel.stream_unary(spot)(timeout=DEADLINE_S, metadata=one) for _ in range(4)]
            await asyncio.wait(
                [asyncio.ensure_future(call.code()) for call in silent], return_when="FIRST_COMPLETED"
            )
            (ended,) = [call for call in silent if call.done()]
            failed = await failure(ended)
            assert (failed.code, failed.reason) == (StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
            assert "3 recordings of this client" in failed.message
            assert failed.quotas == ["client:one"]
            request = rpcs.SpotRequest(audio=pcm(), audio_format=LINEAR16)
            response = await rig.stub.Spot(request, timeout=DEADLINE_S, metadata=other)
            assert [one.keyword for one in response.detections] == [word for _, word in WORDS]

    run(scenario)


def test_streams_are_counted_by_the_names_of_their_tokens(tiny_model_path: Path, tmp_path: Path) -> None:
    secrets = {"anna": "a" * 40, "otto": "o" * 40}
    path = tmp_path / "tokens"
    lines = [f"{name} {hashlib.sha256(secret.encode()).hexdigest()}" for name, secret in secrets.items()]
    path.write_text("\n".join(lines))

    async def scenario() -> None:
        async with serving(tiny_model_path, max_streams_per_client=1, token_file=str(path)) as rig:
            anna, otto = (
                {"metadata": (("authorization", f"Bearer {secret}"),)} for secret in secrets.values()
            )
            call = rig.stub.StreamingSpot(timeout=DEADLINE_S, **anna)
            await call.write(config())
            await call.read()
            failed = await failure(rig.stream(config(), **anna))
            assert (failed.reason, failed.quotas) == ("TOO_MANY_STREAMS", ["client:anna"])
            assert kinds(await collect(rig.stream(config(), **otto))) == ["started", "ended"]
            call.cancel()
            await rig.used_slots(0)

    run(scenario)


def test_a_stream_that_sends_too_fast_is_read_at_the_maximum_rate(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        async with serving(tiny_model_path, max_rate=8, rate_burst_s=2) as rig, beside(rig):
            begun_s = loop.time()
            events = await collect(rig.stream(config(), *chunks(pcm(length_s=14.0))))
            # 2 s at any speed, the rest at eight times real time. The last message is not delayed.
            assert loop.time() - begun_s >= (14 - 2) / 8 - 0.1
            assert len(detections(events)) == 4

    run(scenario)


def test_a_burst_may_be_sent_at_any_speed(tiny_model_path: Path) -> None:
    """At the maximum rate it would take an hour."""

    async def scenario() -> None:
        async with serving(tiny_model_path, max_rate=1, rate_burst_s=3600) as rig:
            events = await collect(rig.stream(config(), silence(3600), audio(pcm([(0.3, "mid")], 1.0))))
            assert kinds(events)[-1] == "ended"
            assert seconds(events[-1].ended.audio_duration) == 3601

    run(scenario)


@pytest.mark.parametrize("size", [3200, 3199], ids=["whole samples", "split samples"])
def test_a_stream_above_the_limit_ends_after_the_events_before_it(tiny_model_path: Path, size: int) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path, max_stream_s=5) as rig, beside(rig):
            call = rig.stub.StreamingSpot(timeout=DEADLINE_S)
            words = [*WORDS, (4.3, "high"), (5.2, "low")]
            await call.write(config())
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                for request in chunks(pcm(words, 6.0)[: 16 * 5001 * 2], size):
                    await call.write(request)
            events = []
            with contextlib.suppress(grpc.aio.AioRpcError):
                while (event := await call.read()) is not grpc.aio.EOF:
                    events.append(event)
            failed = await failure(call)
            assert (failed.code, failed.reason) == (StatusCode.OUT_OF_RANGE, "STREAM_TOO_LONG")
            assert "5 s" in failed.message
            assert [one.keyword for one in detections(events)] == [word for _, word in words[:5]]

    run(scenario)


def test_audio_before_a_resume_counts(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path, max_stream_s=5) as rig:
            events = await collect(rig.stream(config(), *chunks(pcm())))
            progress = [event.progress for event in events if event.WhichOneof("event") == "progress"][-1]
            resume = {"start_offset": progress.replay_offset, "resume_token": progress.resume_token}
            left_s = 5 - seconds(progress.replay_offset)
            fits = rig.stream(config(resume=resume), silence(left_s))
            assert seconds((await collect(fits))[-1].ended.audio_duration) == 5
            failed = await failure(rig.stream(config(resume=resume), silence(left_s), silence(0.1)))
            assert failed.reason == "STREAM_TOO_LONG"

    run(scenario)


def test_metadata_above_the_limit_is_rejected(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path, max_metadata_bytes=4096) as rig, beside(rig):
            fits = rig.stream(config(), metadata=(("x-note", "n" * 3000),))
            assert kinds(await collect(fits)) == ["started", "ended"]
            call = rig.stream(config(), metadata=(("x-note", "n" * 5000),))
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await collect(call)
            assert caught.value.code() == StatusCode.RESOURCE_EXHAUSTED
            await rig.used_slots(1)

    run(scenario)


def test_calls_above_the_limit_of_a_connection_wait_in_the_client(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path, max_calls_per_connection=3) as rig, beside(rig):
            first, *_ = [await open_stream(rig) for _ in range(3)]
            fourth = asyncio.ensure_future(open_stream(rig))
            await asyncio.sleep(0.3)
            assert not fourth.done()
            assert len(rig.server._admission.open_calls) == 4  # with the one on another connection
            first.cancel()
            await fourth

    run(scenario)


def test_a_stream_above_the_limit_is_rejected(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path, max_streams=2) as rig:
            open_calls = [rig.stub.StreamingSpot() for _ in range(2)]
            for call in open_calls:
                await call.write(config())
                await call.read()
            failed = await failure(rig.stream(config()))
            assert (failed.code, failed.reason) == (StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_STREAMS")
            assert failed.retry_s is not None
            assert failed.retry_s > 0

            open_calls[0].cancel()
            await rig.used_slots(1)
            assert kinds(await collect(rig.stream(config()))) == ["started", "ended"]
            open_calls[1].cancel()

    run(scenario)


def test_a_stream_counts_when_its_config_has_arrived(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path, max_streams=2, max_streams_per_client=2) as rig:
            silent = [rig.stub.StreamingSpot() for _ in range(2)]
            for call in silent:
                await call.wait_for_connection()
            await open_calls(rig, 2)
            failed = await failure(rig.stream(config()))
            assert failed.reason == "TOO_MANY_STREAMS"
            silent.pop().cancel()
            await open_calls(rig, 1)
            call = await open_stream(rig)
            silent.pop().cancel()
            await open_calls(rig, 1)
            other = await open_stream(rig)
            failed = await failure(rig.stream(config()))
            assert failed.reason == "TOO_MANY_STREAMS"
            call.cancel()
            other.cancel()
            await open_calls(rig, 0)

    run(scenario)


async def open_calls(rig: Rig, count: int) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while len(rig.server._admission.open_calls) != count:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def test_a_stream_without_a_config_ends_soon(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path, config_timeout_s=0.3) as rig:
            failed = await failure(rig.stub.StreamingSpot(timeout=DEADLINE_S))
            assert (failed.code, failed.reason) == (StatusCode.DEADLINE_EXCEEDED, "IDLE_STREAM")
            assert "0.3 s" in failed.message
            call = await open_stream(rig)
            await asyncio.sleep(0.6)
            await call.write(audio(bytes(3200)))
            await call.done_writing()
            while (event := await call.read()) is not grpc.aio.EOF:
                last = event
            assert kinds([last]) == ["ended"]

    run(scenario)


def test_a_message_of_a_stream_has_a_lower_limit_than_a_recording(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path, max_stream_message_bytes=10_000) as rig:
            failed = await failure(rig.stream(config(), audio(bytes(10_000))))
            assert (failed.code, failed.reason) == (StatusCode.INVALID_ARGUMENT, "MESSAGE_TOO_LARGE")
            request = rpcs.SpotRequest(audio=bytes(32_000), audio_format=LINEAR16)
            await rig.stub.Spot(request, timeout=DEADLINE_S)

    run(scenario)
