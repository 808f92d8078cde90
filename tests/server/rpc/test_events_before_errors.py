"""A stream that ends with an error first gets the events of the audio before it, always the same."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest
from earmark.v1 import keyword_spotting_pb2 as messages
from earmark.v1 import keyword_spotting_service_pb2 as rpcs
from support import tiny_model
from support.deadlines import DEADLINE_S
from support.server_rig import WORDS, audio, chunks, config, detections, failure, run, serving, silence

if TYPE_CHECKING:
    from pathlib import Path

SIZES = [3200, 64_000, 1237, 10**6]
"""Lengths of the chunks, in bytes of 16-bit samples."""

# The last word ends just before the end of the audio, so it is decided only by what follows.
LENGTH_S = 3.55


def samples() -> np.ndarray:
    return tiny_model.recording(WORDS, LENGTH_S)


def linear16() -> bytes:
    return np.round(samples() * 32767).astype("<i2").tobytes()


def float32(*more: float) -> bytes:
    return np.append(samples(), more).astype("<f4").tobytes()


FLOAT32 = messages.AudioFormat(encoding=messages.ENCODING_FLOAT32, sample_rate_hertz=16_000)
MESSAGE = rpcs.StreamingSpotRequest()
ENDINGS: list[Any] = [
    pytest.param(None, linear16(), [], "IDLE_STREAM", id="nothing comes"),
    pytest.param(None, linear16() + b"\0", [], "IDLE_STREAM", id="nothing comes within a sample"),
    pytest.param(None, linear16(), [MESSAGE], "BAD_AUDIO", id="an empty message"),
    pytest.param(None, linear16(), [config()], "CONFIG_REPEATED", id="a second config"),
    pytest.param(None, linear16(), [silence(3601)], "BAD_AUDIO", id="a silence that is too long"),
    pytest.param(None, linear16() + b"\0", [silence(1)], "BAD_AUDIO", id="a silence within a sample"),
    pytest.param(None, linear16() + b"\0", ["end"], "BAD_AUDIO", id="the end within a sample"),
    pytest.param(None, linear16(), [audio(bytes(2**20 + 1))], "MESSAGE_TOO_LARGE", id="a large message"),
    pytest.param(None, linear16(), [silence(100)], "STREAM_TOO_LONG", id="a silence beyond the limit"),
    pytest.param(None, linear16(), [audio(bytes(200_000))], "STREAM_TOO_LONG", id="audio beyond the limit"),
    pytest.param(FLOAT32, float32(np.nan, *[0] * 99), [], "BAD_AUDIO", id="not a number"),
    pytest.param(FLOAT32, float32(0, 1e6, 0, np.inf), ["end"], "BAD_AUDIO", id="far beyond full scale"),
]


@pytest.mark.parametrize(("audio_format", "data", "more", "reason"), ENDINGS)
@pytest.mark.parametrize("size", SIZES)
def test_the_events_of_the_audio_before_an_error_are_sent_first(
    tiny_model_path: Path, audio_format: Any, data: bytes, more: list[Any], reason: str, size: int
) -> None:
    form = {} if audio_format is None else {"audio_format": audio_format}
    requests = chunks(data, size if audio_format is None else 2 * size)

    async def scenario() -> None:
        limits = {"idle_timeout_s": 1.0, "max_stream_s": 8, "max_message_bytes": 2**20}
        async with serving(tiny_model_path, **limits) as rig:
            call = rig.stub.StreamingSpot(timeout=DEADLINE_S)
            for request in (config(**form), *requests, *more):
                if request == "end":
                    await call.done_writing()
                else:
                    await call.write(request)
            events = []
            with contextlib.suppress(grpc.aio.AioRpcError):
                while (event := await call.read()) is not grpc.aio.EOF:
                    events.append(event)
            assert (await failure(call)).reason == reason
            assert [one.keyword for one in detections(events)] == [word for _, word in WORDS]
            assert len({one.detection_id for one in detections(events)}) == len(WORDS)
            await rig.used_slots(0)

    run(scenario)
