"""Requests as values; messages that are too large, or that cannot be decoded, are rejected."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from earmark.v1 import keyword_spotting_pb2 as messages
from earmark.v1 import keyword_spotting_service_pb2 as rpcs
from earmark_server.rpc import requests as requests_module
from earmark_server.rpc.requests import (
    AudioChunk,
    Deserializers,
    DurationField,
    EmptyRequest,
    FormatField,
    GetModelCall,
    KeywordField,
    OpenStream,
    Silence,
)
from earmark_server.settings import Settings
from earmark_server.status import CallError
from grpc import StatusCode
from support.deadlines import DEADLINE_S
from support.raw_connection import connected
from support.server_rig import Rig, audio, collect, config, duration, failure, kinds, run, serving, silence

from benchmarks.loadgen import http2_frames

if TYPE_CHECKING:
    from pathlib import Path

    from earmark_server.rpc.requests import StreamRequest

DESERIALIZERS = Deserializers(Settings())


def test_a_config_becomes_an_open_stream_without_defaults() -> None:
    settings = [messages.KeywordSetting(keyword="low"), messages.KeywordSetting(keyword="mid", threshold=0.5)]
    message = config(request_id="r", model="m", keywords=settings, progress_interval=duration(0.5))
    assert DESERIALIZERS.streaming_spot(message.SerializeToString()) == OpenStream(
        request_id="r",
        model="m",
        audio_format=FormatField(messages.ENCODING_LINEAR16, 16_000, 0),
        keywords=(KeywordField("low", None, None), KeywordField("mid", 0.5, None)),
        score_interval=None,
        progress_interval=DurationField(0, 500_000_000),
        resume=None,
    )


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (audio(b"ab"), AudioChunk(b"ab")),
        (audio(b""), AudioChunk(b"")),
        (silence(1.5), Silence(DurationField(1, 500_000_000))),
        (rpcs.StreamingSpotRequest(), EmptyRequest()),
    ],
)
def test_a_later_message_becomes_audio_or_silence(
    message: rpcs.StreamingSpotRequest, expected: StreamRequest
) -> None:
    assert DESERIALIZERS.streaming_spot(message.SerializeToString()) == expected


def test_at_most_one_keyword_above_the_limit_is_converted() -> None:
    message = config(keywords=[messages.KeywordSetting(keyword="low")] * 1000)
    request = DESERIALIZERS.streaming_spot(message.SerializeToString())
    assert isinstance(request, OpenStream)
    assert len(request.keywords) == Settings().max_keywords + 1


async def send_raw(rig: Rig, serialized: list[bytes]) -> Any:
    call = rig.channel.stream_stream("/earmark.v1.KeywordSpottingService/StreamingSpot")(timeout=DEADLINE_S)
    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        for message in serialized:
            await call.write(message)
        await call.done_writing()
    return call


def test_a_message_above_the_limit_is_rejected(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path, max_message_bytes=10_000) as rig:
            fits = rpcs.StreamingSpotRequest(audio=bytes(9_996))
            assert fits.ByteSize() == 10_000 - 1
            assert kinds(await collect(rig.stream(config(), fits)))[-1] == "ended"
            for length in (10_001, 60_000):
                failed = await failure(rig.stream(config(), audio(bytes(length))))
                assert (failed.code, failed.reason) == (StatusCode.INVALID_ARGUMENT, "MESSAGE_TOO_LARGE")
                assert "10000" in failed.message
            failed = await failure(rig.stream(config(model="x" * 20_000)))
            assert failed.reason == "MESSAGE_TOO_LARGE"
            await rig.used_slots(0)

    run(scenario)


@pytest.mark.parametrize("place", [0, 1], ids=["first", "later"])
def test_bytes_that_are_not_a_message_are_rejected(tiny_model_path: Path, place: int) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path) as rig:
            call = await send_raw(rig, [config().SerializeToString()] * place + [b"\xff\xff\xff"])
            failed = await failure(call)
            assert (failed.code, failed.reason) == (StatusCode.INVALID_ARGUMENT, "BAD_CONFIG")
            await rig.used_slots(0)

    run(scenario)


def test_a_message_far_above_the_limit_is_rejected_by_its_header(tiny_model_path: Path) -> None:
    """The server needs no memory for it: the last byte of the message is never sent."""

    async def scenario() -> None:
        async with serving(tiny_model_path) as rig, connected(rig.address) as raw:
            size = 100_000_000
            begin = b"\0" + size.to_bytes(4, "big") + bytes(10_000)
            await raw.send(
                http2_frames.connection_preface()
                + raw.open_stream(1)
                + http2_frames.frame(http2_frames.DATA, 0, 1, begin)
            )
            async with asyncio.timeout(DEADLINE_S):
                async for kind, _ in raw.frames():
                    if kind == http2_frames.HEADERS:
                        break
            failed = rig.stub.Spot(rpcs.SpotRequest(audio=bytes(size)), timeout=DEADLINE_S)
            assert await failed.code() == StatusCode.RESOURCE_EXHAUSTED
            assert "larger than max" in await failed.details()

    run(scenario)


EMPTY_AUDIO = b"\x12\x00"
UNKNOWN_FIELD = b"\xfa\x01\x00"


@pytest.mark.parametrize("field", [EMPTY_AUDIO, UNKNOWN_FIELD], ids=["empty audio", "unknown fields"])
@pytest.mark.parametrize("size", [2_000, 60_000, 70_000, 900_000])
def test_a_message_of_empty_fields_is_rejected(field: bytes, size: int) -> None:
    serialized = field * (size // len(field))
    for message in (serialized, serialized + audio(bytes(100)).SerializeToString()):
        error = DESERIALIZERS.streaming_spot(message)
        assert isinstance(error, CallError)
        assert error.reason == "MESSAGE_TOO_LARGE"


def test_only_the_beginning_of_a_message_with_many_fields_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each field is read in Python, on the event loop: 30,000 of them would block it for 13 ms."""
    read = 0
    original = requests_module._varint

    def counted(data: bytes, position: int) -> tuple[int, int]:
        nonlocal read
        read += 1
        return original(data, position)

    monkeypatch.setattr(requests_module, "_varint", counted)
    for deserialize in (DESERIALIZERS.streaming_spot, DESERIALIZERS.spot, DESERIALIZERS.classify):
        assert isinstance(deserialize(EMPTY_AUDIO * 40_000), CallError)
        assert 0 < read < 1000
        read = 0


def test_the_request_of_a_lookup_is_short() -> None:
    fits = rpcs.GetModelRequest(model="m" * 4000).SerializeToString()
    assert DESERIALIZERS.get_model(fits) == GetModelCall("m" * 4000)
    for deserialize in (DESERIALIZERS.get_model, DESERIALIZERS.list_models):
        error = deserialize(UNKNOWN_FIELD * 2000)
        assert isinstance(error, CallError)
        assert error.reason == "MESSAGE_TOO_LARGE"
