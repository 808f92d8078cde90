"""What is left of streams that were cancelled: no slot, no count, no operation of gRPC's."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from earmark_server.rpc.service import KeywordSpottingService
from support.server_rig import DEADLINE_S, Rig, audio, collect, config, kinds, run, serving

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from pathlib import Path

AT_ONCE = 20


class Watched:
    """A call's context that counts the reads and writes that are open, and those that were cancelled."""

    open = 0
    cancelled = 0

    def __init__(self, context: Any) -> None:
        self._context = context

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    async def read(self) -> Any:
        return await self._watch(self._context.read())

    async def write(self, message: Any) -> None:
        await self._watch(self._context.write(message))

    @staticmethod
    async def _watch(operation: Awaitable[Any]) -> Any:
        Watched.open += 1
        try:
            return await operation
        except asyncio.CancelledError:
            Watched.cancelled += 1
            raise
        finally:
            Watched.open -= 1


@pytest.fixture(autouse=True)
def watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Watched, "open", 0)
    monkeypatch.setattr(Watched, "cancelled", 0)
    serve = KeywordSpottingService.streaming_spot

    async def watch(self: KeywordSpottingService, request: object, context: Any) -> None:
        await serve(self, request, Watched(context))

    monkeypatch.setattr(KeywordSpottingService, "streaming_spot", watch)


async def nothing_is_left(rig: Rig) -> None:
    await rig.used_slots(0)
    async with asyncio.timeout(DEADLINE_S):
        # Nothing tells when gRPC is done with the last of them.
        while len(rig.server._admission.open_calls) or Watched.open:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert not Watched.cancelled


async def say_nothing(_: Any) -> None:
    """The server waits for the config."""


async def say_how(call: Any) -> None:
    """The server waits for audio."""
    await call.write(config())
    await call.read()


async def speak(call: Any) -> None:
    """The server has audio to listen to, and waits for more."""
    await say_how(call)
    await call.write(audio(bytes(64_000)))


async def speak_much(call: Any) -> None:
    """The server has more than it reads at once, and events that nobody reads."""
    await call.write(config(score_interval={"nanos": 20_000_000}))
    for _ in range(10):
        await call.write(audio(bytes(320_000)))


@pytest.mark.parametrize("say", [say_nothing, say_how, speak, speak_much])
def test_cancelled_streams_leave_nothing_behind(tiny_model_path: Path, say: Any) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path, max_streams=AT_ONCE) as rig:
            for _ in range(3):
                calls = [rig.stub.StreamingSpot() for _ in range(AT_ONCE)]
                for call in calls:
                    await call.wait_for_connection()
                    await say(call)
                for call in calls:
                    call.cancel()
                await nothing_is_left(rig)
            # As many as at first have room, and not one less.
            calls = [rig.stub.StreamingSpot() for _ in range(AT_ONCE)]
            for call in calls:
                await say_how(call)
                await call.done_writing()
            assert [kinds(await collect_rest(call)) for call in calls] == [["ended"]] * AT_ONCE
            await nothing_is_left(rig)

    run(scenario)


async def collect_rest(call: Any) -> list[Any]:
    events = []
    while (event := await call.read()) is not grpc.aio.EOF:
        events.append(event)
    return events


@pytest.mark.parametrize("say", [say_nothing, say_how])
def test_streams_that_the_server_ends_leave_nothing_behind(tiny_model_path: Path, say: Any) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path, idle_timeout_s=0.3) as rig:
            calls = [rig.stub.StreamingSpot() for _ in range(AT_ONCE)]
            for call in calls:
                # Those before may have ended already.
                with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                    await say(call)
            for call in calls:
                assert await call.code() == grpc.StatusCode.DEADLINE_EXCEEDED
            await nothing_is_left(rig)
            assert kinds(await collect(rig.stream(config()))) == ["started", "ended"]

    run(scenario)
