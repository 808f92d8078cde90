"""Traces: one span per call, its parent and attributes, and no import of OpenTelemetry without --traces."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from earmark.v1 import keyword_spotting_service_pb2 as rpcs
from earmark.v1 import keyword_spotting_service_pb2_grpc as stubs
from earmark_server.rpc import tracing
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from support.deadlines import DEADLINE_S
from support.server_process import ServerProcess
from support.server_rig import (
    LINEAR16,
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
from support.trace_collector import Collector, attributes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"
SERVICE = "earmark.v1.KeywordSpottingService"


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """The exporter that receives each span when it ends."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(tracing, "_from_environment", lambda: provider)
    yield exporter
    provider.shutdown()


def test_a_stream_has_one_span_which_is_a_child_of_its_clients_span(
    tiny_model_path: Path, exporter: InMemorySpanExporter
) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path, traces=True) as rig:
            metadata = (("traceparent", f"00-{TRACE}-{SPAN}-01"),)
            call = rig.stream(config(request_id="mine"), *chunks(pcm()), metadata=metadata)
            assert len(detections(await collect(call))) == 4
            response = dict(await call.initial_metadata())["traceresponse"]
        (span,) = exporter.get_finished_spans()
        assert span.name == f"{SERVICE}/StreamingSpot"
        assert (span.context.trace_id, span.parent.span_id) == (int(TRACE, 16), int(SPAN, 16))
        assert response == f"00-{TRACE}-{span.context.span_id:016x}-01"
        assert dict(span.attributes) == {
            "rpc.system": "grpc",
            "rpc.service": SERVICE,
            "rpc.method": "StreamingSpot",
            "rpc.grpc.status_code": 0,
            "earmark.request_id": "mine",
            "earmark.model": "tiny",
            "earmark.audio_s": 4.0,
            "earmark.detections": 4,
        }
        assert span.status.is_unset
        assert not span.links

    run(scenario)


def test_unary_calls_and_rejected_calls_have_spans(
    tiny_model_path: Path, exporter: InMemorySpanExporter, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "earmark_server")

    async def scenario() -> None:
        async with serving(tiny_model_path, traces=True) as rig:
            await rig.stub.Spot(rpcs.SpotRequest(audio=pcm(), audio_format=LINEAR16), timeout=DEADLINE_S)
            await failure(rig.stream(audio(b"")))
        spot, rejected = exporter.get_finished_spans()
        assert spot.attributes["rpc.method"] == "Spot"
        assert spot.attributes["earmark.detections"] == 4
        assert rejected.attributes["rpc.grpc.status_code"] == grpc.StatusCode.INVALID_ARGUMENT.value[0]
        assert rejected.attributes["earmark.reason"] == "CONFIG_EXPECTED_FIRST"
        # The client causes this error, not the server.
        assert rejected.status.is_unset
        assert spot.context.trace_id != rejected.context.trace_id
        ended = [record.earmark for record in caplog.records if record.message == "call ended"]
        assert [line["trace_id"] for line in ended] == [
            f"{span.context.trace_id:032x}" for span in (spot, rejected)
        ]

    run(scenario)


def test_an_internal_error_marks_the_span_without_the_text_of_the_exception(
    tiny_model_path: Path, exporter: InMemorySpanExporter
) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path, traces=True) as rig:

            def fail(*_: Any) -> None:
                raise RuntimeError("the secret inside")

            rig.server._service.loaded.result().models.current[0].step = fail
            await failure(rig.stream(config(), audio(pcm())))
        (span,) = exporter.get_finished_spans()
        assert not span.status.is_ok
        assert span.status.description == "INTERNAL_ERROR"
        assert "secret" not in span.to_json()

    run(scenario)


def test_the_span_of_a_resumed_stream_links_to_the_span_of_the_broken_one(
    tiny_model_path: Path, exporter: InMemorySpanExporter
) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path, traces=True) as rig:
            metadata = (("earmark-resumes", f"00-{TRACE}-{SPAN}-01"),)
            await collect(rig.stream(config(), *chunks(pcm()), metadata=metadata))
        (span,) = exporter.get_finished_spans()
        (link,) = span.links
        assert (link.context.trace_id, link.context.span_id) == (int(TRACE, 16), int(SPAN, 16))
        assert span.parent is None

    run(scenario)


@pytest.mark.parametrize("value", ["", "00", f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{SPAN}", "x" * 1000])
def test_an_invalid_trace_context_is_ignored(
    tiny_model_path: Path, exporter: InMemorySpanExporter, value: str
) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path, traces=True) as rig:
            metadata = (("traceparent", value), ("tracestate", value), ("earmark-resumes", value))
            await collect(rig.stream(config(), *chunks(pcm()), metadata=metadata))
        (span,) = exporter.get_finished_spans()
        assert span.parent is None
        assert not span.links

    run(scenario)


def spot(port: int) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = stubs.KeywordSpottingServiceStub(channel)
        requests = iter([config(request_id="mine"), *chunks(pcm())])
        assert len(detections(stub.StreamingSpot(requests, timeout=DEADLINE_S))) == 4


def test_spans_are_exported_to_the_collector_in_the_environment(tiny_model_path: Path) -> None:
    arguments = ("--port=0", f"--model={tiny_model_path}", "--log-format=json", "--traces")
    with Collector() as collector:
        environment = {**collector.environment, "OTEL_BSP_SCHEDULE_DELAY": "3600000"}
        with ServerProcess(*arguments, **environment) as server:
            spot(server.wait_for("listening")["port"])
            server.process.terminate()
            # The remaining spans are sent when the server ends.
            assert server.end()[0] == 0
        span = collector.next()
    assert span.name == f"{SERVICE}/StreamingSpot"
    assert attributes(span)["earmark.request_id"] == "mine"
    (resource,) = collector.resources
    assert resource["service.name"] == "earmark-server"
    assert resource["service.version"]


def test_the_environment_sets_the_name_of_the_service(tiny_model_path: Path) -> None:
    arguments = ("--port=0", f"--model={tiny_model_path}", "--log-format=json", "--traces")
    with Collector() as collector:
        with ServerProcess(*arguments, **collector.environment, OTEL_SERVICE_NAME="ours") as server:
            spot(server.wait_for("listening")["port"])
            collector.next()
        assert collector.resources[0]["service.name"] == "ours"


@pytest.mark.slow
def test_a_collector_that_does_not_answer_blocks_nothing(tiny_model_path: Path) -> None:
    arguments = ("--port=0", f"--model={tiny_model_path}", "--log-format=json", "--traces")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_TIMEOUT": "3600"}
        with ServerProcess(*arguments, **environment) as server:
            port = server.wait_for("listening")["port"]
            for _ in range(3):
                spot(port)
            server.process.terminate()
            assert server.end()[0] == 0


def test_without_traces_opentelemetry_is_not_imported() -> None:
    code = (
        "import earmark_client, earmark_server.server, sys;"
        "assert not any(name.startswith('opentelemetry') for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_traces_without_the_packages_end_with_an_error_message(tmp_path: Path) -> None:
    (tmp_path / "opentelemetry").mkdir()
    (tmp_path / "opentelemetry" / "__init__.py").write_text("")
    paths = os.pathsep.join((str(tmp_path), os.environ.get("PYTHONPATH", "")))
    with ServerProcess("--port=0", "--traces", PYTHONPATH=paths) as server:
        code, output = server.end()
    assert code == 1
    assert "(the extra `otel`)" in output
    assert "Traceback" not in output
