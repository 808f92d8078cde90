"""The health port, for probes that support neither TLS nor tokens."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from earmark.v1 import keyword_spotting_service_pb2 as rpcs
from earmark.v1 import keyword_spotting_service_pb2_grpc as stubs
from earmark_server.credentials.tokens import add_token
from earmark_server.server import Server, StartError
from earmark_server.settings import Settings, SettingsError
from grpc import StatusCode
from grpc.aio import AioRpcError
from grpc_health.v1 import health_pb2, health_pb2_grpc
from support.certificates import Authority
from support.deadlines import DEADLINE_S
from support.ports import free_port
from support.raw_connection import connected
from support.server_process import ServerProcess
from support.server_rig import config, open_channel, run, serving

from benchmarks.loadgen import http2_frames

if TYPE_CHECKING:
    from pathlib import Path

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def check(port: int) -> int:
    async with open_channel(f"127.0.0.1:{port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest()
        return (await stub.Check(request, timeout=DEADLINE_S, wait_for_ready=True)).status


def test_a_probe_of_the_health_port_needs_neither_tls_nor_a_token(
    tiny_model_path: Path, tmp_path: Path
) -> None:
    pair = Authority(tmp_path).sign()
    add_token("robot", str(tmp_path / "tokens"))

    async def scenario() -> None:
        port = free_port()
        async with serving(
            tiny_model_path,
            health_port=port,
            tls_certificate=str(pair.certificate),
            tls_key=str(pair.key),
            token_file=str(tmp_path / "tokens"),
        ):
            assert await check(port) == SERVING

    run(scenario)


def test_the_health_port_serves_only_health(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        port = free_port()
        async with (
            serving(tiny_model_path, health_port=port),
            open_channel(f"127.0.0.1:{port}") as channel,
        ):
            stub = stubs.KeywordSpottingServiceStub(channel)
            with pytest.raises(AioRpcError) as caught:
                await stub.ListModels(rpcs.ListModelsRequest(), timeout=DEADLINE_S)
            assert caught.value.code() == StatusCode.UNIMPLEMENTED

    run(scenario)


def test_the_health_port_rejects_long_messages_by_their_header(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        port = free_port()
        address = f"127.0.0.1:{port}"
        async with (
            serving(tiny_model_path, health_port=port),
            connected(address, "/grpc.health.v1.Health/Check") as raw,
        ):
            await raw.send(
                http2_frames.connection_preface()
                + raw.open_stream(1)
                + http2_frames.frame(http2_frames.DATA, 0, 1, b"\0" + (100_000).to_bytes(4, "big"))
            )
            async with asyncio.timeout(DEADLINE_S):
                async for kind, _ in raw.frames():
                    if kind == http2_frames.HEADERS:
                        break
            assert await check(port) == SERVING

    run(scenario)


def test_the_health_port_answers_until_a_drain_is_complete(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        port = free_port()
        async with serving(tiny_model_path, health_port=port, drain_grace_s=DEADLINE_S) as rig:
            call = rig.stub.StreamingSpot(timeout=DEADLINE_S)
            await call.write(config())
            await call.read()
            draining = asyncio.create_task(rig.server.drain())
            while await check(port) != NOT_SERVING:
                pass
            await call.done_writing()
            await draining
            with pytest.raises(AioRpcError):
                async with open_channel(f"127.0.0.1:{port}") as channel:
                    await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())

    run(scenario)


def test_a_health_port_in_use_is_reported(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path) as rig:
            in_use = rig.server.port
            with pytest.raises(StartError, match=f"127.0.0.1:{in_use}: the port is in use .*--health-port"):
                await Server(Settings(port=0, health_port=in_use, model=(str(tiny_model_path),))).start()

    run(scenario)


def test_each_worker_has_a_health_port(tiny_model_path: Path) -> None:
    port = free_port(2)
    given = ("--workers=2", "--port=0", f"--model={tiny_model_path}", "--log-format=json")
    with ServerProcess(*given, f"--health-port={port}") as workers:
        workers.wait_for("serving")
        for each in (port, port + 1):
            assert asyncio.run(check(each)) == SERVING
    with pytest.raises(SettingsError, match="--health-port must leave a port for each of 4 workers"):
        Settings(health_port=65533, workers=4)
