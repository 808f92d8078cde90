from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from earmark.v1 import keyword_spotting_service_pb2 as rpcs
from earmark.v1 import keyword_spotting_service_pb2_grpc as stubs
from earmark_server import SettingsError, serve_in_thread
from earmark_server.server import StartError
from support.deadlines import DEADLINE_S
from support.server_rig import LINEAR16, WORDS, chunks, config, detections, open_channel, pcm

if TYPE_CHECKING:
    from pathlib import Path

DETECTED = [word for _, word in WORDS]


def spot_blocking(address: str) -> list[str]:
    with grpc.insecure_channel(address) as channel:
        request = rpcs.SpotRequest(audio=pcm(), audio_format=LINEAR16)
        answer = stubs.KeywordSpottingServiceStub(channel).Spot(request, timeout=DEADLINE_S)
        return [one.keyword for one in answer.detections]


async def stream(address: str) -> list[str]:
    async with open_channel(address) as channel:
        call = stubs.KeywordSpottingServiceStub(channel).StreamingSpot(timeout=DEADLINE_S)
        for request in [config(), *chunks(pcm())]:
            await call.write(request)
        await call.done_writing()
        events = []
        while (event := await call.read()) is not grpc.aio.EOF:
            events.append(event)
        return [one.keyword for one in detections(events)]


def test_a_blocking_client_in_the_same_process(tiny_model_path: Path) -> None:
    with serve_in_thread(model=(str(tiny_model_path),)) as address:
        assert address.startswith("127.0.0.1:")
        assert spot_blocking(address) == DETECTED
    assert "earmark-embedded-server" not in [thread.name for thread in threading.enumerate()]


def test_several_asyncio_clients_in_the_same_process(
    tiny_model_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with serve_in_thread(model=(str(tiny_model_path),)) as address:
        for _ in range(5):
            assert asyncio.run(stream(address)) == DETECTED
    assert not [record for record in caplog.records if record.name == "asyncio"]


def test_two_servers_in_one_process(tiny_model_path: Path) -> None:
    model = (str(tiny_model_path),)
    with serve_in_thread(model=model) as one, serve_in_thread(model=model) as other:
        assert one != other
        assert spot_blocking(one) == spot_blocking(other) == DETECTED


def test_an_embedded_server_stops_with_open_calls(tiny_model_path: Path) -> None:
    with serve_in_thread(model=(str(tiny_model_path),)) as address:
        channel = grpc.insecure_channel(address)
        call = stubs.KeywordSpottingServiceStub(channel).StreamingSpot(iter([config()]), timeout=DEADLINE_S)
        assert next(call).WhichOneof("event") == "started"
    channel.close()


@pytest.mark.parametrize(
    ("overrides", "error"),
    [({"port": -1}, SettingsError), ({"host": "192.0.2.1", "insecure": True}, StartError)],
)
def test_a_server_that_cannot_start_raises_the_reason(
    tiny_model_path: Path, overrides: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error), serve_in_thread(model=(str(tiny_model_path),), **overrides):
        pass
