"""The limits on calls that need no inference: health, reflection, ListModels and GetModel."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from earmark_server import server as server_module
from earmark_server.rpc import health, reflection
from earmark_server.rpc.lookup_requests import HEALTH
from earmark_server.rpc.turns import Turns
from earmark_server.status import CallError
from grpc import StatusCode
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from support.deadlines import DEADLINE_S
from support.ports import free_port
from support.server_rig import Rig, failure, open_channel, run, serving

if TYPE_CHECKING:
    from pathlib import Path

CHECK = "/grpc.health.v1.Health/Check"
SERVING = health_pb2.HealthCheckResponse.SERVING


async def check(rig: Rig) -> int:
    stub = health_pb2_grpc.HealthStub(rig.channel)
    return (await stub.Check(health_pb2.HealthCheckRequest(), timeout=DEADLINE_S)).status


async def silent_calls(rig: Rig, method: str, count: int) -> list[Any]:
    calls = [rig.channel.stream_unary(method)(timeout=DEADLINE_S) for _ in range(count)]
    for call in calls:
        await call.wait_for_connection()
    return calls


def test_a_health_check_that_sends_nothing_ends(
    tiny_model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "HEALTH", replace(HEALTH, timeout_s=0.3))

    async def scenario() -> None:
        async with serving(tiny_model_path) as rig:
            for call in await silent_calls(rig, CHECK, 3):
                failed = await failure(call)
                assert (failed.code, failed.reason) == (StatusCode.DEADLINE_EXCEEDED, "IDLE_STREAM")
            assert await check(rig) == SERVING

    run(scenario)


@pytest.mark.parametrize("method", ["ListModels", "GetModel"])
def test_silent_lookups_do_not_delay_a_health_check(tiny_model_path: Path, method: str) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path) as rig:
            calls = await silent_calls(rig, f"/earmark.v1.KeywordSpottingService/{method}", 12)
            assert await check(rig) == SERVING
            assert not any(call.done() for call in calls)

    run(scenario)


def test_silent_health_checks_do_not_keep_others_waiting_for_long(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path) as rig:
            await silent_calls(rig, CHECK, 12)
            assert await check(rig) == SERVING

    run(scenario)


def test_silent_health_checks_do_not_delay_those_of_the_health_port(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        port = free_port()
        async with (
            serving(tiny_model_path, health_port=port) as rig,
            open_channel(f"127.0.0.1:{port}") as probe,
        ):
            of_health_port = Rig(rig.server, f"127.0.0.1:{port}", probe, None)
            calls = await silent_calls(rig, CHECK, 20)
            calls += await silent_calls(of_health_port, CHECK, 20)
            assert await check(of_health_port) == SERVING
            assert not any(call.done() for call in calls)

    run(scenario)


def test_a_long_health_check_is_rejected(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path) as rig:
            stub = health_pb2_grpc.HealthStub(rig.channel)
            for rpc in (stub.Check, stub.Watch):
                failed = await failure(
                    rpc(health_pb2.HealthCheckRequest(service="s" * 5000), timeout=DEADLINE_S)
                )
                assert (failed.code, failed.reason) == (StatusCode.INVALID_ARGUMENT, "MESSAGE_TOO_LARGE")

    run(scenario)


def test_a_client_can_have_a_part_of_the_turns_only() -> None:
    async def scenario() -> None:
        turns = Turns(3, 2, timeout_s=0.2)
        async with turns.turn("greedy"), turns.turn("greedy"):
            with pytest.raises(CallError, match="Try again later") as caught:
                async with turns.turn("greedy"):
                    pass
            assert caught.value.reason == "OVERLOADED"
            async with turns.turn("other"):
                with pytest.raises(CallError):
                    async with turns.turn("third"):
                        pass
            async with turns.turn("third"):
                pass
        assert not turns._users
        assert not turns._turns_by_quota_key

    run(scenario)


def test_health_watches_are_limited(tiny_model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_MAX_WATCHES_PER_CLIENT", 2)

    async def scenario() -> None:
        async with serving(tiny_model_path) as rig:
            stub = health_pb2_grpc.HealthStub(rig.channel)
            watches = [stub.Watch(health_pb2.HealthCheckRequest(), timeout=DEADLINE_S) for _ in range(2)]
            for watch in watches:
                assert (await watch.read()).status == SERVING
            failed = await failure(stub.Watch(health_pb2.HealthCheckRequest(), timeout=DEADLINE_S))
            assert (failed.code, failed.reason) == (StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
            for watch in watches:
                watch.cancel()
            async with asyncio.timeout(DEADLINE_S):
                # gRPC cancels the handlers in its own time.
                while rig.server._health._watches._open:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)

    run(scenario)


def test_a_health_watch_ends(tiny_model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_MAX_WATCH_S", 0.3)

    async def scenario() -> None:
        async with serving(tiny_model_path) as rig:
            stub = health_pb2_grpc.HealthStub(rig.channel)
            watch = stub.Watch(health_pb2.HealthCheckRequest(), timeout=DEADLINE_S)
            assert (await watch.read()).status == SERVING
            assert await watch.code() == StatusCode.UNAVAILABLE

    run(scenario)


def test_an_idle_reflection_stream_ends(tiny_model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reflection, "_IDLE_TIMEOUT_S", 0.3)

    async def scenario() -> None:
        async with serving(tiny_model_path) as rig:
            call = reflection_pb2_grpc.ServerReflectionStub(rig.channel).ServerReflectionInfo(
                timeout=DEADLINE_S
            )
            await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
            names = {each.name for each in (await call.read()).list_services_response.service}
            assert "earmark.v1.KeywordSpottingService" in names
            assert (await failure(call)).reason == "IDLE_STREAM"

    run(scenario)


def test_reflection_streams_are_limited(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path) as rig:
            stub = reflection_pb2_grpc.ServerReflectionStub(rig.channel)
            calls = [stub.ServerReflectionInfo(timeout=DEADLINE_S) for _ in range(4)]
            for call in calls:
                await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
                await call.read()
            assert (await failure(stub.ServerReflectionInfo(timeout=DEADLINE_S))).reason == "OVERLOADED"
            for call in calls:
                call.cancel()

    run(scenario)
