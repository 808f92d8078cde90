"""The bundled model and recording, through the server."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from earmark.v1 import keyword_spotting_service_pb2 as rpcs
from earmark_spotter import Spotter
from support.deadlines import DEADLINE_S
from support.server_rig import (
    chunks,
    collect,
    config,
    detections,
    duration,
    kinds,
    linear16,
    run,
    seconds,
    serving,
)

DEMO = Path(__file__).parents[3] / "client/earmark_cli/samples/demo.flac"


@pytest.mark.parametrize("count", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_the_server_detects_the_same_as_the_library(count: int) -> None:
    samples, rate_hz = soundfile.read(DEMO, dtype="float32")
    data = linear16(samples)
    assert rate_hz == 16_000
    spotter = Spotter.load()
    expected = spotter.feed(data) + spotter.flush()

    async def scenario() -> None:
        async with serving(()) as rig:
            request = config(score_interval=duration(0.4))
            calls = [rig.stream(request, *chunks(data, 1000 + 700 * i)) for i in range(count)]
            begun = time.monotonic()
            streamed = await asyncio.gather(*map(collect, calls))
            assert time.monotonic() - begun < DEADLINE_S
            for events in streamed:
                detected = detections(events)
                assert [one.detection_id for one in detected] == [one.id for one in expected]
                for one, other in zip(detected, expected, strict=True):
                    assert one.confidence == pytest.approx(other.confidence, abs=1e-3)
                    assert seconds(one.end_offset) == pytest.approx(other.end_sample / rate_hz)
                scores = [event.scores for event in events if kinds([event]) == ["scores"]]
                assert len(scores) == int(len(samples) / rate_hz / 0.4)
                for frame in scores:
                    # On and off were added to a trained model.
                    others = sum(one.score for one in frame.scores if one.label not in ("on", "off"))
                    added = sum(one.score for one in frame.scores if one.label in ("on", "off"))
                    assert others == pytest.approx(1, abs=1e-3) if added < 0.07 else others < 1.001
                    assert 0.999 < others + added < 1.501
            request = rpcs.SpotRequest(audio=DEMO.read_bytes())
            whole = await rig.stub.Spot(request, timeout=DEADLINE_S)
            assert [one.detection_id for one in whole.detections] == [one.id for one in expected]
            assert np.isclose(seconds(whole.audio_duration), len(samples) / rate_hz)

    run(scenario)
