"""The metrics of a server after known calls."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import http.client
import subprocess
import sys
import threading
import urllib.request
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from earmark.v1 import keyword_spotting_service_pb2 as rpcs
from earmark_server.server import Server, StartError
from earmark_server.settings import Settings, SettingsError
from earmark_server.status import REASONS
from earmark_server.telemetry.rpc_metrics import CODES
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import parser
from prometheus_client.openmetrics import parser as openmetrics
from support.deadlines import DEADLINE_S
from support.ports import free_port
from support.server_rig import (
    LINEAR16,
    Rig,
    audio,
    chunks,
    collect,
    config,
    detections,
    failure,
    pcm,
    run,
    serving,
)
from support.worker_processes import Workers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

SERVICE = "earmark.v1.KeywordSpottingService"
Scraped = dict[tuple[str, frozenset[str]], float]


def fetch(port: int, accept: str = "text/plain") -> str:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=DEADLINE_S) as response:
        text: str = response.read().decode()
    return text


def scraped(port: int) -> Scraped:
    return {
        (sample.name, frozenset(sample.labels.values())): sample.value
        for family in parser.text_string_to_metric_families(fetch(port))
        for sample in family.samples
    }


class MeteredRig:
    """A server with metrics, and methods to scrape them."""

    def __init__(self, rig: Rig, port: int) -> None:
        self.rig = rig
        self._port = port

    async def scrape(self) -> Scraped:
        return await asyncio.to_thread(scraped, self._port)

    async def value(self, name: str, *labels: str) -> float:
        """Return the only value of a metric whose labels include these values."""
        found = await self.scrape()
        (value,) = (value for (each, own), value in found.items() if each == name and own >= set(labels))
        return value

    async def until(self, expected: float, name: str, *labels: str) -> None:
        """Wait for a value; a call that has ended for the client may not have ended on the server yet."""
        async with asyncio.timeout(DEADLINE_S):
            while (value := await self.value(name, *labels)) != expected:
                assert value < expected or name.endswith("_open"), f"{name} {labels}: {value}"


@contextlib.asynccontextmanager
async def metered(model: Path, **overrides: Any) -> AsyncIterator[MeteredRig]:
    port = free_port()
    async with serving(model, metrics_port=port, **overrides) as rig:
        yield MeteredRig(rig, port)


def test_calls_are_counted_by_method_and_status(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        async with metered(tiny_model_path) as meter:
            rig = meter.rig
            for _ in range(3):
                assert len(detections(await collect(rig.stream(config(), *chunks(pcm()))))) == 4
            await rig.stub.Spot(rpcs.SpotRequest(audio=pcm(), audio_format=LINEAR16), timeout=DEADLINE_S)
            await failure(rig.stream(audio(b"")))
            request = health_pb2.HealthCheckRequest()
            await health_pb2_grpc.HealthStub(rig.channel).Check(request, timeout=DEADLINE_S)

            stream = (SERVICE, "StreamingSpot", "bidi_stream")
            await meter.until(3, "grpc_server_handled_total", *stream, "OK")
            await meter.until(1, "grpc_server_handled_total", *stream, "InvalidArgument")
            assert await meter.value("grpc_server_started_total", *stream) == 4
            assert await meter.value("grpc_server_msg_received_total", *stream) == 3 * 41 + 1
            # Started, four detections, four Progress, ended.
            assert await meter.value("grpc_server_msg_sent_total", *stream) == 3 * 10
            assert await meter.value("grpc_server_handling_seconds_count", *stream) == 4
            assert await meter.value("grpc_server_handled_total", SERVICE, "Spot", "unary", "OK") == 1
            health = ("grpc.health.v1.Health", "Check", "unary", "OK")
            assert await meter.value("grpc_server_handled_total", *health) == 1

            assert await meter.value("earmark_detections_total", "tiny", "low") == 4 * 2
            assert await meter.value("earmark_detections_total", "tiny", "mid") == 4
            assert await meter.value("earmark_refusals_total", "CONFIG_EXPECTED_FIRST") == 1
            # The audio that completes the last keyword is processed too.
            assert 16 <= await meter.value("earmark_audio_seconds_total") < 17
            assert await meter.value("earmark_batch_streams_sum") >= 4
            assert await meter.value("earmark_step_seconds_count") == await meter.value(
                "earmark_batch_streams_count"
            )
            assert await meter.value("earmark_queue_wait_seconds_count") > 0
            assert await meter.value("earmark_serving") == 1
            assert await meter.value("process_resident_memory_bytes") > 1e7

    run(scenario)


def test_head_returns_the_headers_of_get_without_a_body(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        port = free_port()
        async with serving(tiny_model_path, metrics_port=port):

            def request(method: str) -> tuple[int, str | None, bytes]:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)
                with contextlib.closing(connection):
                    connection.request(method, "/metrics")
                    response = connection.getresponse()
                    return response.status, response.getheader("content-type"), response.read()

            get, head = [await asyncio.to_thread(request, method) for method in ("GET", "HEAD")]
        assert get[0] == 200
        assert b"earmark_serving 1" in get[2]
        assert head == (*get[:2], b"")

    run(scenario)


def test_calls_without_a_token_are_counted(tiny_model_path: Path, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(f"somebody {hashlib.sha256(b'secret').hexdigest()}\n")

    async def scenario() -> None:
        async with metered(tiny_model_path, token_file=str(tokens)) as meter:
            await failure(meter.rig.stream())
            await meter.until(1, "grpc_server_handled_total", "StreamingSpot", "Unauthenticated")
            assert await meter.value("earmark_refusals_total", "MISSING_CREDENTIALS") == 1

    run(scenario)


def test_open_streams_are_counted_while_they_are_open(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        async with metered(tiny_model_path, max_streams=7) as meter:
            calls = [meter.rig.stub.StreamingSpot(timeout=DEADLINE_S) for _ in range(5)]
            for call in calls:
                await call.write(config())
                await call.read()
            assert await meter.value("earmark_streams_open") == 5
            assert await meter.value("earmark_streams_limit") == 7
            for call in calls:
                call.cancel()
            await meter.until(5, "grpc_server_handled_total", "StreamingSpot", "Canceled")
            await meter.until(0, "earmark_streams_open")

    run(scenario)


def test_a_call_past_its_deadline_is_counted_as_deadline_exceeded(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        async with metered(tiny_model_path) as meter:
            call = meter.rig.stub.StreamingSpot(timeout=0.3)
            await call.write(config())
            with contextlib.suppress(grpc.aio.AioRpcError):
                while await call.read() is not grpc.aio.EOF:
                    pass
            await meter.until(1, "grpc_server_handled_total", "StreamingSpot", "DeadlineExceeded")

    run(scenario)


def test_no_name_that_a_client_invents_becomes_a_label(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        async with metered(tiny_model_path) as meter:
            before = await meter.scrape()
            for i in range(20):
                for name in (f"/invented/Method{i}", f"/{SERVICE}/Method{i}"):
                    with pytest.raises(grpc.aio.AioRpcError):
                        await meter.rig.channel.unary_unary(name)(b"", timeout=DEADLINE_S)
                await failure(meter.rig.stream(config(model=f"model {i}")))
                await failure(meter.rig.stream(config(keywords=[{"keyword": f"word {i}"}])))
            await meter.until(20, "earmark_refusals_total", "UNKNOWN_MODEL")
            await meter.until(20, "earmark_refusals_total", "UNKNOWN_KEYWORD")
            assert (await meter.scrape()).keys() == before.keys()
            for reason in REASONS:
                assert ("earmark_refusals_total", frozenset((reason,))) in before

    run(scenario)


def test_a_stalled_engine_shows_in_the_metrics(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        async with metered(tiny_model_path, stall_timeout_s=0.2) as meter:
            model = meter.rig.server._service.loaded.result().models.current[0]
            go, step = threading.Event(), model.step

            def hang(*arguments: Any) -> Any:
                assert go.wait(DEADLINE_S)
                return step(*arguments)

            model.step = hang
            # The engine hangs in the first stream, and the second one waits.
            streams = [meter.rig.stream(config(), *chunks(pcm())) for _ in range(2)]
            assert [(await failure(stream)).reason for stream in streams] == ["ENGINE_STALLED"] * 2
            assert await meter.value("earmark_serving") == 0
            assert await meter.value("earmark_stalls_total") == 1
            assert await meter.value("earmark_refusals_total", "ENGINE_STALLED") == 2
            go.set()
            async with asyncio.timeout(DEADLINE_S):
                while not await meter.value("earmark_serving"):
                    pass
            assert await meter.value("earmark_lag_seconds") == 0

    run(scenario)


def test_the_output_is_valid_openmetrics(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        async with metered(tiny_model_path) as meter:
            await collect(meter.rig.stream(config(), *chunks(pcm())))
            text = await asyncio.to_thread(fetch, meter._port, "application/openmetrics-text; version=1.0.0")
            families = {
                family.name: family.type for family in openmetrics.text_string_to_metric_families(text)
            }
            assert families["grpc_server_handled"] == "counter"
            assert families["grpc_server_handling_seconds"] == "histogram"
            assert families["earmark_model"] == "info"

    run(scenario)


@pytest.mark.parametrize(
    "accept", ['application/openmetrics-text; version="1.0.0"', "text/plain; version=one"]
)
def test_a_version_that_is_not_understood_gets_the_default_format(tiny_model_path: Path, accept: str) -> None:
    async def scenario() -> None:
        async with metered(tiny_model_path) as meter:
            assert "# TYPE earmark" in await asyncio.to_thread(fetch, meter._port, accept)

    run(scenario)


def test_status_codes_have_the_spelling_of_go() -> None:
    assert {"OK", "Canceled", "InvalidArgument", "DeadlineExceeded", "Unavailable"} < set(CODES)


def test_a_metrics_port_in_use_is_reported_and_the_server_does_not_start(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        async with metered(tiny_model_path) as meter:
            second = Server(Settings(port=0, metrics_port=meter._port, model=(str(tiny_model_path),)))
            with pytest.raises(
                StartError, match=f"127.0.0.1:{meter._port} for metrics: Address already in use"
            ):
                await second.start()
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", second.port)

    run(scenario)


def test_the_metrics_port_is_free_after_a_stop(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        port = free_port()
        for _ in range(2):
            async with serving(tiny_model_path, metrics_port=port):
                assert "earmark_serving 1.0" in await asyncio.to_thread(fetch, port)

    run(scenario)


def test_without_a_metrics_port_prometheus_client_is_not_imported() -> None:
    code = "import earmark_server.server, sys; assert 'prometheus_client' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_each_worker_has_its_own_metrics_port_and_metrics(tiny_model_path: Path) -> None:
    port = free_port(2)
    with Workers(tiny_model_path, f"--metrics-port={port}") as workers:
        workers.serve()
        workers.connect_to(*workers.pids)
        name = ("earmark_detections_total", frozenset(("tiny", "mid")))
        counts = [scraped(port + i)[name] for i in range(2)]
        # Each connection has had one stream with one detection of this keyword.
        assert all(counts)
        assert sum(counts) == next(workers._ids)


def test_each_worker_needs_a_metrics_port() -> None:
    with pytest.raises(SettingsError, match="a port for each of 4 workers"):
        Settings(metrics_port=65533, workers=4)
    Settings(metrics_port=65532, workers=4)


def test_silent_connections_keep_nobody_from_the_metrics(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        port = free_port()
        async with serving(tiny_model_path, metrics_port=port):
            silent = []
            for i in range(200):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                if i % 2:
                    writer.write(b"GET /metrics HTTP/1.1\r\nX: ")
                silent.append(writer)
            before = threading.active_count()
            assert "earmark_serving 1.0" in await asyncio.to_thread(fetch, port)
            assert before < 60
            for writer in silent:
                writer.close()

    run(scenario)
