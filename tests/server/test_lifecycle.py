"""Health, start, drain and stop of a server."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from earmark.v1 import keyword_spotting_service_pb2 as rpcs
from earmark.v1 import keyword_spotting_service_pb2_grpc as stubs
from earmark_server import server as server_module
from earmark_server.inference.model_registry import ModelRegistry
from earmark_server.server import Server, StartError
from earmark_server.settings import Settings
from earmark_spotter import ModelError
from grpc import StatusCode
from grpc.aio import AioRpcError
from grpc_health.v1 import health_pb2, health_pb2_grpc
from support.deadlines import DEADLINE_S
from support.server_rig import (
    LINEAR16,
    audio,
    chunks,
    collect,
    config,
    detections,
    duration,
    failure,
    kinds,
    open_channel,
    pcm,
    run,
    seconds,
    serving,
)

if TYPE_CHECKING:
    from pathlib import Path

SERVICE = "earmark.v1.KeywordSpottingService"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


async def check(channel: Any, name: str = "") -> int:
    request = health_pb2.HealthCheckRequest(service=name)
    return (await health_pb2_grpc.HealthStub(channel).Check(request, timeout=DEADLINE_S)).status


class Watch:
    def __init__(self, channel: Any, name: str = SERVICE) -> None:
        request = health_pb2.HealthCheckRequest(service=name)
        self._call = health_pb2_grpc.HealthStub(channel).Watch(request, timeout=3 * DEADLINE_S)

    async def next(self) -> int:
        return (await self._call.read()).status


def test_health_is_checked_by_name(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path) as rig:
            assert await check(rig.channel) == SERVING
            assert await check(rig.channel, SERVICE) == SERVING
            with pytest.raises(AioRpcError) as caught:
                await check(rig.channel, "no.such.Service")
            assert caught.value.code() == StatusCode.NOT_FOUND
            assert await Watch(rig.channel, "no.such.Service").next() == SERVICE_UNKNOWN

    run(scenario)


def test_health_is_not_serving_until_the_model_is_warm(
    tiny_model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()

    def load_later(settings: Settings) -> ModelRegistry:
        assert go.wait(DEADLINE_S)
        return ModelRegistry(settings)

    monkeypatch.setattr(server_module, "ModelRegistry", load_later)

    async def scenario() -> None:
        server = Server(Settings(port=0, model=(str(tiny_model_path),)))
        starting = asyncio.ensure_future(server.start())
        async with asyncio.timeout(DEADLINE_S):
            while not server.port:  # noqa: ASYNC110 - `start` binds it, and then waits
                await asyncio.sleep(0.01)
        async with open_channel(f"127.0.0.1:{server.port}") as channel:
            assert await check(channel) == NOT_SERVING
            watch = Watch(channel)
            assert await watch.next() == NOT_SERVING
            # Calls that arrive before that wait, and are answered.
            stub = stubs.KeywordSpottingServiceStub(channel)
            early = asyncio.ensure_future(stub.ListModels(rpcs.ListModelsRequest(), timeout=DEADLINE_S))
            go.set()
            assert await watch.next() == SERVING
            assert (await early).models[0].name == "tiny"
            await starting
        await server.stop()

    run(scenario)


def test_an_internal_error_has_an_incident_id_that_is_in_the_log(
    tiny_model_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path) as rig:
            model = rig.server._service.loaded.result().models.current[0]
            step = model.step

            def fail(pcm: Any, state: Any) -> Any:
                if pcm.max() > 0.9:
                    raise RuntimeError("the secret inside")
                return step(pcm, state)

            model.step = fail
            other = asyncio.ensure_future(collect(rig.stream(config(), *chunks(pcm(length_s=20), 640))))
            failed = await failure(rig.stream(config(), audio(b"\xff\x7f" * 16_000)))
            assert (failed.code, failed.reason) == (StatusCode.INTERNAL, "INTERNAL_ERROR")
            assert "secret" not in failed.message
            assert len(detections(await other)) == 4
            (record,) = [record for record in caplog.records if record.message == "internal error"]
            assert record.earmark["incident"] in failed.message
            assert record.exc_info is not None
            assert "the secret inside" in caplog.text
            await rig.used_slots(0)

    run(scenario)


def test_draining_moves_streams_to_another_server(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        words = [(0.4 + 0.45 * i, ("low", "mid", "high")[i % 3]) for i in range(16)]
        data = pcm(words, 8)
        async with serving(tiny_model_path) as other:
            whole = detections(await collect(other.stream(config(), *chunks(data))))
            async with serving(tiny_model_path, drain_grace_s=DEADLINE_S) as rig:
                watch = Watch(rig.channel)
                assert await watch.next() == SERVING
                call = rig.stub.StreamingSpot(timeout=DEADLINE_S)
                await call.write(config())
                # In the middle of the keyword at 3.1 s.
                for request in chunks(data[: int(3.13 * 32_000)]):
                    await call.write(request)
                seen = [await call.read()]
                while len(detections(seen)) < 5:
                    seen.append(await call.read())

                draining = asyncio.ensure_future(rig.server.drain())
                assert await watch.next() == NOT_SERVING
                assert await check(rig.channel) == NOT_SERVING
                while not seen[-1].progress.draining:
                    seen.append(await call.read())
                progress = seen[-1].progress
                assert progress.resume_token

                rejected = await failure(rig.stream(config()))
                assert (rejected.code, rejected.reason) == (StatusCode.UNAVAILABLE, "DRAINING")
                assert rejected.retry_s
                request = rpcs.SpotRequest(audio=data, audio_format=LINEAR16)
                rejected = await failure(rig.stub.Spot(request, timeout=DEADLINE_S))
                assert (rejected.code, rejected.reason) == (StatusCode.UNAVAILABLE, "DRAINING")

                # The drain is complete when the client ends its stream.
                call.cancel()
                await draining

            start = int(seconds(progress.replay_offset) * 32_000)
            point = {"start_offset": progress.replay_offset, "resume_token": progress.resume_token}
            after = detections(await collect(other.stream(config(resume=point), *chunks(data[start:]))))
            before = detections(seen)
            known = {one.detection_id for one in before}
            both = before + [one for one in after if one.detection_id not in known]
            assert both == whole

    run(scenario)


def test_an_open_stream_may_continue_within_the_grace_period(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path, drain_grace_s=DEADLINE_S) as rig:
            call = rig.stub.StreamingSpot(timeout=DEADLINE_S)
            await call.write(config())
            assert kinds([await call.read()]) == ["started"]
            draining = asyncio.ensure_future(rig.server.drain())
            assert (await call.read()).progress.draining
            for request in chunks(pcm()):
                await call.write(request)
            await call.done_writing()
            events = [await call.read()]
            while kinds(events[-1:]) != ["ended"]:
                events.append(await call.read())
            assert len(detections(events)) == 4
            assert await call.code() == StatusCode.OK
            await draining
            await rig.server.wait()

    run(scenario)


def test_streams_end_after_the_grace_period(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path, drain_grace_s=0.3) as rig:
            with_config, without = rig.stub.StreamingSpot(), rig.stub.StreamingSpot()
            await with_config.write(config())
            await with_config.read()
            await without.wait_for_connection()
            stuck = rig.stub.StreamingSpot()
            await stuck.write(config(score_interval=duration(0.02)))
            await stuck.write(rpcs.StreamingSpotRequest(silence=duration(3000)))
            async with asyncio.timeout(DEADLINE_S):
                while len(rig.server._admission.open_calls) < 3:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            begun = time.monotonic()
            await rig.server.drain()
            assert 0.3 <= time.monotonic() - begun < 5
            for call in (with_config, without):
                failed = await failure(call)
                assert (failed.code, failed.reason) == (StatusCode.UNAVAILABLE, "DRAINING")
            stuck.cancel()

    run(scenario)


def test_a_drain_without_calls_is_immediate(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path, drain_grace_s=3600) as rig:
            watch = Watch(rig.channel)
            await watch.next()
            async with asyncio.timeout(DEADLINE_S):
                await rig.server.drain()

    run(scenario)


def test_a_port_in_use_is_reported(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path) as rig:
            second = Server(Settings(port=rig.server.port, model=(str(tiny_model_path),)))
            with pytest.raises(StartError, match="in use"):
                await second.start()
            await second.stop()

    run(scenario)


@pytest.mark.parametrize(
    ("host", "port", "problem"),
    [
        ("unix:absent/kws.sock", 50_051, "there is no folder absent."),
        ("unix:file/kws.sock", 50_051, "Not a directory."),
        (
            "unix:file",
            50_051,
            "the file there is not a socket. Delete it, or choose another path with --host.",
        ),
        # Names that do not exist (RFC 6761), and an address that no machine has (RFC 5737).
        ("no.invalid", 0, "the name no.invalid cannot be resolved ("),
        ("no.invalid", 50_051, "the name no.invalid cannot be resolved ("),
        ("192.0.2.1", 0, "the address does not belong to this machine. Correct --host."),
        ("192.0.2.1", 50_051, "the address does not belong to this machine. Correct --host."),
    ],
)
def test_a_host_that_cannot_be_listened_on_is_reported(
    tiny_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, port: int, problem: str
) -> None:
    monkeypatch.chdir(tmp_path)  # the path of a socket has at most 107 bytes
    (tmp_path / "file").touch()

    async def scenario() -> None:
        server = Server(Settings(host=host, port=port, insecure=True, model=(str(tiny_model_path),)))
        message = f"Cannot listen on {server._settings.address(port)}: {problem}"
        with pytest.raises(StartError, match=re.escape(message)):
            await server.start()
        assert (tmp_path / "file").read_bytes() == b""

    run(scenario)


@pytest.mark.parametrize("kind", ["no model", "same name twice"])
def test_models_that_cannot_be_served_stop_the_server(
    tiny_model_path: Path, tmp_path: Path, kind: str
) -> None:
    async def scenario() -> None:
        paths = (str(tiny_model_path), str(tiny_model_path))
        if kind == "no model":
            bad = tmp_path / "bad.onnx"
            bad.write_bytes(b"not a model")
            paths = (str(bad),)
        server = Server(Settings(port=0, model=paths))
        with pytest.raises((ModelError, StartError)):
            await server.start()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", server.port)

    run(scenario)


def test_a_name_of_two_addresses_needs_the_port_on_both(
    tiny_model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """gRPC alone would listen on the address that is free, and report nothing."""

    async def scenario() -> None:
        with socket.socket() as busy:
            busy.bind(("127.0.0.2", 0))
            busy.listen()
            port = busy.getsockname()[1]
            found = [
                (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
                for address in ("127.0.0.1", "127.0.0.2")
            ]
            monkeypatch.setattr("earmark_server.server.socket.getaddrinfo", lambda *_, **__: found)
            server = Server(Settings(host="localhost", port=port, model=(str(tiny_model_path),)))
            with pytest.raises(StartError, match="the port is in use"):
                await server.start()

    run(scenario)
