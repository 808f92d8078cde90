"""The measures of load, and the rejection of new streams by an overloaded server."""

from __future__ import annotations

import asyncio
import contextlib
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING

import grpc
import pytest
from earmark_server.inference import load as load_module
from earmark_server.inference.load import Load
from grpc import StatusCode
from support.deadlines import DEADLINE_S
from support.server_rig import chunks, collect, config, detections, failure, kinds, pcm, run, serving

if TYPE_CHECKING:
    from pathlib import Path


def fill(load: Load, *, seconds: float, round_s: float, waited_s: float, live: float = 1.0) -> None:
    """Add rounds of length `round_s`, twenty milliseconds apart, over the last `seconds`."""
    now = load_module.time.monotonic()
    load._window_start_s = now - seconds
    for i in range(round(seconds / 0.02)):
        began_s = now - seconds + i * 0.02
        load.add_round(began_s, began_s + round_s, waited_s, live)


def test_the_share_is_the_fraction_of_time_spent_on_live_streams() -> None:
    load = Load()
    fill(load, seconds=1.2, round_s=0.01, waited_s=0.001)
    assert load.share == pytest.approx(0.5, abs=0.05)
    fill(load, seconds=1.2, round_s=0.01, waited_s=0.001, live=0.25)
    assert load.share == pytest.approx(0.125, abs=0.02)


def test_the_lag_is_the_shortest_wait_of_all_rounds() -> None:
    load = Load()
    fill(load, seconds=1.2, round_s=0.01, waited_s=0.3)
    assert load.lag_s == pytest.approx(0.3)
    # A single long wait is not overload, and neither is a long wait of an almost idle engine.
    now = time.monotonic()
    for i in range(60):
        load.add_round(now + i * 0.02, now + i * 0.02 + 0.01, 2.0 if i % 20 == 5 else 0.01, 1.0)
    assert load.lag_s == pytest.approx(0.01)
    load = Load()
    load.add_round(now - 1, now, 2.0, 1.0)
    load.add_round(now, now + 0.6, 2.0, 1.0)
    assert load.lag_s == 0


def test_old_rounds_do_not_count() -> None:
    load = Load()
    now = time.monotonic() - 60
    for i in range(60):
        load.add_round(now + i * 0.02, now + i * 0.02 + 0.02, 0.3, 1.0)
    assert (load.share, load.lag_s) == (0, 0)


@pytest.mark.parametrize(
    "overload",
    [{"round_s": 0.019, "waited_s": 0.001}, {"round_s": 0.001, "waited_s": 0.5}],
    ids=["no time is left", "audio waits"],
)
def test_an_overloaded_server_rejects_new_streams_and_serves_the_open_ones(
    tiny_model_path: Path, overload: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path, max_load=0.75, max_lag_s=0.1) as rig:
            call = rig.stub.StreamingSpot(timeout=DEADLINE_S)
            await call.write(config())
            assert kinds([await call.read()]) == ["started"]

            # The overload lasts until the stream is rejected, however long a busy machine needs for that.
            with monkeypatch.context() as patch:
                now = time.monotonic()
                patch.setattr(load_module, "time", SimpleNamespace(monotonic=lambda: now))
                fill(rig.server._engine.load, seconds=1.2, **overload)
                failed = await failure(rig.stream(config()))
            assert (failed.code, failed.reason) == (StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
            assert failed.retry_s is not None
            assert failed.retry_s > 0

            for piece in chunks(pcm()):
                await call.write(piece)
            await call.done_writing()
            events = []
            while (event := await call.read()) and event.WhichOneof("event") != "ended":
                events.append(event)
            assert len(detections(events)) == 4

            # The overload ends after a while, and then the rejected stream is admitted.
            async with asyncio.timeout(DEADLINE_S):
                while True:
                    again = rig.stream(config())
                    with contextlib.suppress(grpc.aio.AioRpcError):
                        await collect(again)
                    if await again.code() is StatusCode.OK:
                        break
                    # Not the code of the call: grpc.aio replaces it if a write comes too late.
                    assert await (await again.server_status).code() is StatusCode.RESOURCE_EXHAUSTED
                    await asyncio.sleep(0.1)

    run(scenario)
