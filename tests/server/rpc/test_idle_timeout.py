"""A call whose client sends nothing ends."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest
from grpc import StatusCode
from support.deadlines import DEADLINE_S
from support.server_rig import audio, collect, config, failure, kinds, run, serving, silence

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("first", [True, False], ids=["no config", "no audio"])
def test_an_idle_stream_ends(tiny_model_path: Path, first: bool) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path, idle_timeout_s=0.3) as rig:
            call = rig.stub.StreamingSpot(timeout=DEADLINE_S)
            if not first:
                await call.write(config())
                await call.write(audio(bytes(3200)))
            failed = await failure(call)
            assert (failed.code, failed.reason) == (StatusCode.DEADLINE_EXCEEDED, "IDLE_STREAM")
            assert "0.3 s" in failed.message
            await rig.used_slots(0)

    run(scenario)


def test_a_stream_that_sends_now_and_then_is_not_idle(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path, idle_timeout_s=0.5) as rig:
            call = rig.stub.StreamingSpot(timeout=DEADLINE_S)
            await call.write(config())
            for _ in range(8):
                await asyncio.sleep(0.15)
                await call.write(silence(0.15))
            await call.done_writing()
            assert kinds(await collect(call))[-1] == "ended"

    run(scenario)


def test_a_stream_is_not_idle_because_the_server_was_suspended(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path, idle_timeout_s=0.3, slow_reader_timeout_s=0.3) as rig:
            call = rig.stub.StreamingSpot(timeout=DEADLINE_S)
            await call.write(config())
            assert (await call.read()).HasField("started")
            await call.write(audio(bytes(3200)))
            time.sleep(1.6)  # noqa: ASYNC251 - the server's event loop stands still
            await call.write(audio(bytes(3200)))
            await call.done_writing()
            assert (await call.read()).HasField("ended")

    run(scenario)


@pytest.mark.parametrize("rpc", ["Spot", "Classify", "ListModels", "GetModel"])
def test_a_call_that_never_sends_its_request_ends(tiny_model_path: Path, rpc: str) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path, idle_timeout_s=0.3, max_calls=1) as rig:
            method = f"/earmark.v1.KeywordSpottingService/{rpc}"
            call = rig.channel.stream_unary(method)(timeout=DEADLINE_S)
            await call.wait_for_connection()
            failed = await failure(call)
            assert (failed.code, failed.reason) == (StatusCode.DEADLINE_EXCEEDED, "IDLE_STREAM")
            empty = rig.channel.stream_unary(method)(iter([]), timeout=DEADLINE_S)
            failed = await failure(empty)
            assert (failed.code, failed.reason) == (StatusCode.INVALID_ARGUMENT, "BAD_CONFIG")
            assert len(rig.server._admission.open_calls) == 0

    run(scenario)
