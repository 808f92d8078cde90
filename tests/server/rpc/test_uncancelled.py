"""Cancelled streams leave nothing behind: no slot, no open call, no pending operation of gRPC."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from earmark_server.rpc.service import KeywordSpottingService
from support.deadlines import DEADLINE_S
from support.server_rig import Rig, audio, collect, config, kinds, run, serving

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from pathlib import Path

CONCURRENT = 20


class CountingContext:
    """A call's context that counts the reads and writes that are pending, and those that were cancelled."""

    pending = 0
    cancelled = 0

    def __init__(self, context: Any) -> None:
        self._context = context

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    async def read(self) -> Any:
        return await self._count(self._context.read())

    async def write(self, message: Any) -> None:
        await self._count(self._context.write(message))

    @staticmethod
    async def _count(operation: Awaitable[Any]) -> Any:
        CountingContext.pending += 1
        try:
            return await operation
        except asyncio.CancelledError:
            CountingContext.cancelled += 1
            raise
        finally:
            CountingContext.pending -= 1


@pytest.fixture(autouse=True)
def count_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CountingContext, "pending", 0)
    monkeypatch.setattr(CountingContext, "cancelled", 0)
    serve = KeywordSpottingService.streaming_spot

    async def counted(self: KeywordSpottingService, request: object, context: Any) -> None:
        await serve(self, request, CountingContext(context))

    monkeypatch.setattr(KeywordSpottingService, "streaming_spot", counted)


async def wait_until_nothing_is_left(rig: Rig) -> None:
    await rig.used_slots(0)
    async with asyncio.timeout(DEADLINE_S):
        # No event announces that gRPC is done with the last one.
        while len(rig.server._admission.open_calls) or CountingContext.pending:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert not CountingContext.cancelled


async def send_nothing(_: Any) -> None:
    """Leave the server waiting for the config."""


async def send_config(call: Any) -> None:
    """Leave the server waiting for audio."""
    await call.write(config())
    await call.read()


async def send_audio(call: Any) -> None:
    """Leave the server with pending audio, waiting for more."""
    await send_config(call)
    await call.write(audio(bytes(64_000)))


async def send_much_audio(call: Any) -> None:
    """Leave the server with more audio than it reads at once, and with events that nobody reads."""
    await call.write(config(score_interval={"nanos": 20_000_000}))
    for _ in range(5):
        await call.write(audio(bytes(64_000)))


@pytest.mark.slow
@pytest.mark.parametrize("send", [send_nothing, send_config, send_audio, send_much_audio])
def test_cancelled_streams_leave_nothing_behind(tiny_model_path: Path, send: Any) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path, max_streams=CONCURRENT) as rig:
            for _ in range(3):
                calls = [rig.stub.StreamingSpot() for _ in range(CONCURRENT)]
                for call in calls:
                    await call.wait_for_connection()
                    await send(call)
                for call in calls:
                    call.cancel()
                await wait_until_nothing_is_left(rig)
            # As many streams as before can be opened.
            calls = [rig.stub.StreamingSpot() for _ in range(CONCURRENT)]
            for call in calls:
                await send_config(call)
                await call.done_writing()
            assert [kinds(await collect_rest(call)) for call in calls] == [["ended"]] * CONCURRENT
            await wait_until_nothing_is_left(rig)

    run(scenario)


async def collect_rest(call: Any) -> list[Any]:
    events = []
    while (event := await call.read()) is not grpc.aio.EOF:
        events.append(event)
    return events


@pytest.mark.parametrize("send", [send_nothing, send_config])
def test_streams_that_the_server_ends_leave_nothing_behind(tiny_model_path: Path, send: Any) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path, idle_timeout_s=0.3) as rig:
            calls = [rig.stub.StreamingSpot() for _ in range(CONCURRENT)]
            for call in calls:
                # Earlier streams may have ended already.
                with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                    await send(call)
            for call in calls:
                timed_out = await call.code() == grpc.StatusCode.DEADLINE_EXCEEDED
                # The client's own error, if it writes to a stream that has just ended.
                assert timed_out or await call.details() == "Internal error from Core"
            await wait_until_nothing_is_left(rig)
            assert kinds(await collect(rig.stream(config()))) == ["started", "ended"]

    run(scenario)


def test_a_cancelled_stream_releases_its_slot(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path) as rig:
            for _ in range(5):
                calls = [rig.stub.StreamingSpot() for _ in range(20)]
                for call in calls:
                    await call.write(config())
                    await call.read()
                await rig.used_slots(20)
                for i, call in enumerate(calls):
                    if i % 2:
                        await call.write(audio(bytes(320_000)))
                    call.cancel()
                await rig.used_slots(0)
            assert len(rig.server._admission.open_calls) == 0

    run(scenario)
