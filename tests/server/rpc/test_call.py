"""The log line of a call, and its status."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from grpc import StatusCode
from support.deadlines import DEADLINE_S
from support.server_rig import audio, chunks, collect, config, failure, pcm, run, serving

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_a_deadline_ends_a_stream(tiny_model_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path) as rig:
            call = rig.stub.StreamingSpot(timeout=0.3)
            await call.write(config())
            assert await call.code() == StatusCode.DEADLINE_EXCEEDED
            await rig.used_slots(0)

    with caplog.at_level(logging.INFO, "earmark_server"):
        run(scenario)
    (line,) = [record.earmark for record in caplog.records if record.message == "call ended"]
    assert line["status"] in ("DEADLINE_EXCEEDED", "CANCELLED")


def test_every_stream_has_one_log_line(tiny_model_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path) as rig:
            await collect(rig.stream(config(request_id="good one"), *chunks(pcm())))
            await failure(rig.stream(config(request_id="bad one"), audio(b"odd")))
            call = rig.stub.StreamingSpot()
            await call.write(config(request_id="gone one"))
            await call.read()
            call.cancel()
            await rig.used_slots(0)

    with caplog.at_level(logging.INFO, "earmark_server"):
        run(scenario)
    lines = {
        record.earmark["request_id"]: record.earmark
        for record in caplog.records
        if record.message == "call ended"
    }
    good, bad, gone = lines["good one"], lines["bad one"], lines["gone one"]
    assert (good["status"], good["detections"], good["audio_s"], good["model"]) == ("OK", 4, 4.0, "tiny")
    assert good["peer"].startswith("ipv4:127.0.0.1:")
    assert 0 < good["wall_s"] < DEADLINE_S
    assert (bad["status"], bad["reason"]) == ("INVALID_ARGUMENT", "BAD_AUDIO")
    assert gone["status"] == "CANCELLED"
    assert "odd" not in caplog.text.replace("good", "")
