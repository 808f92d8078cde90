"""The command `earmark-server`, as a process."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import grpc
import pytest
from earmark.v1 import keyword_spotting_service_pb2 as rpcs
from earmark.v1 import keyword_spotting_service_pb2_grpc as stubs
from grpc_health.v1 import health_pb2, health_pb2_grpc
from support.deadlines import DEADLINE_S
from support.server_process import ServerProcess
from support.server_rig import chunks, config, detections, pcm

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SERVING = health_pb2.HealthCheckResponse.SERVING


@pytest.fixture
def server(tiny_model_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess("--port=0", f"--model={tiny_model_path}", "--log-format=json") as process:
        yield process


def exit_of(*arguments: str, **environment: str) -> tuple[int, str]:
    with ServerProcess(*arguments, **environment) as process:
        return process.end()


def test_invalid_settings_exit_with_2_and_a_message() -> None:
    code, output = exit_of("--port", "many")
    assert code == 2
    assert "--port must be a whole number" in output
    assert "Traceback" not in output
    code, output = exit_of(EARMARK_LOG_FORMAT="xml")
    assert code == 2
    assert "text or json" in output


@pytest.mark.slow
def test_an_invalid_model_and_a_port_in_use_exit_with_1_and_a_message(
    tmp_path: Path, tiny_model_path: Path
) -> None:
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"not a model")
    code, output = exit_of("--port=0", f"--model={bad}")
    assert code == 1
    assert "cannot start" in output
    assert "not an ONNX model" in output
    assert "Traceback" not in output
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        code, output = exit_of(f"--port={busy.getsockname()[1]}", f"--model={tiny_model_path}")
    assert code == 1
    assert "the port is in use" in output
    assert "Traceback" not in output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_the_command_serves_and_a_signal_drains_it(server: ServerProcess, number: signal.Signals) -> None:
    port = server.wait_for("listening")["port"]
    assert server.wait_for("serving")["models"] == "tiny"
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        health = health_pb2_grpc.HealthStub(channel)
        assert health.Check(health_pb2.HealthCheckRequest(), timeout=DEADLINE_S).status == SERVING
        requests = iter([config(request_id="last"), *chunks(pcm())])
        events = list(stubs.KeywordSpottingServiceStub(channel).StreamingSpot(requests, timeout=DEADLINE_S))
        assert len(detections(events)) == 4
    server.process.send_signal(number)
    lines = list(server.lines())
    assert [line["event"] for line in lines] == [*["detection"] * 4, "call ended", "draining", "stopped"]
    assert {line["request_id"] for line in lines[:5]} == {"last"}
    assert server.end()[0] == 0


def test_an_open_stream_is_notified_before_the_server_stops(tiny_model_path: Path) -> None:
    arguments = ("--port=0", f"--model={tiny_model_path}", "--log-format=json", "--drain-grace-s=0.5")
    with ServerProcess(*arguments) as server:
        port = server.wait_for("listening")["port"]
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = stubs.KeywordSpottingServiceStub(channel).StreamingSpot(
                iter([config()]), timeout=DEADLINE_S
            )
            endless = stubs.KeywordSpottingServiceStub(channel).StreamingSpot(
                _never_ending(), timeout=DEADLINE_S
            )
            assert list(call)[-1].WhichOneof("event") == "ended"
            assert next(endless).WhichOneof("event") == "started"
            server.process.send_signal(signal.SIGTERM)
            assert next(endless).progress.draining
            with pytest.raises(grpc.RpcError) as caught:
                next(endless)
            assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        assert server.end()[0] == 0


def _never_ending() -> Iterator[rpcs.StreamingSpotRequest]:
    yield config()
    while True:
        yield rpcs.StreamingSpotRequest(silence={"nanos": 10_000_000})
        time.sleep(0.01)


def test_a_second_signal_stops_the_server_at_once(tiny_model_path: Path) -> None:
    arguments = ("--port=0", f"--model={tiny_model_path}", "--log-format=json", "--drain-grace-s=3600")
    with ServerProcess(*arguments) as server:
        port = server.wait_for("listening")["port"]
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = stubs.KeywordSpottingServiceStub(channel).StreamingSpot(
                _never_ending(), timeout=DEADLINE_S
            )
            next(call)
            server.process.send_signal(signal.SIGTERM)
            server.wait_for("draining")
            server.process.send_signal(signal.SIGTERM)
            assert server.end()[0] == 1


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_signals_after_the_drain_do_not_change_the_exit_code(tiny_model_path: Path, workers: int) -> None:
    arguments = (f"--workers={workers}", "--port=0", f"--model={tiny_model_path}", "--log-format=json")
    with ServerProcess(*arguments) as server:
        server.wait_for("serving")
        server.process.send_signal(signal.SIGTERM)
        while "worker" in server.wait_for("stopped"):
            pass
        while server.process.poll() is None:
            server.process.send_signal(signal.SIGTERM)
            time.sleep(0.01)
        assert server.end()[0] == 0


def test_text_log_lines_state_the_port(tiny_model_path: Path) -> None:
    with ServerProcess("--port=0", EARMARK_MODEL=str(tiny_model_path)) as server:
        line = next(server.text_lines())
        assert re.search(r" level=info event=listening host=127\.0\.0\.1 port=\d+$", line)


def test_the_server_starts_fast() -> None:
    # The guarantee is 1.5 s on an idle machine. A busy one needs longer.
    with ServerProcess("--port=0", "--log-format=json") as server:
        server.wait_for("serving")
        assert time.monotonic() - server.started_s < 15


def test_a_misspelt_variable_is_logged(tiny_model_path: Path) -> None:
    arguments = ("--port=0", f"--model={tiny_model_path}", "--log-format=json")
    with ServerProcess(*arguments, EARMARK_MAX_STREAM="5") as server:
        line = server.wait_for("unknown variable")
        assert (line["variable"], line["did_you_mean"]) == ("EARMARK_MAX_STREAM", "EARMARK_MAX_STREAMS")
        server.wait_for("serving")


def test_torch_is_not_imported() -> None:
    code = "import sys, earmark_server.server, earmark_server.process; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_signal_ends_a_server_whose_model_does_not_load(tmp_path: Path, tiny_model_path: Path) -> None:
    """The module that it imports with its model hangs."""
    (tmp_path / "soxr.py").write_text("import time\ntime.sleep(3600)\n")
    arguments = ("--port=0", f"--model={tiny_model_path}", "--log-format=json")
    path = os.pathsep.join((str(tmp_path), os.environ.get("PYTHONPATH", "")))
    with ServerProcess(*arguments, PYTHONPATH=path) as server:
        server.wait_for("listening")
        server.process.send_signal(signal.SIGTERM)
        server.wait_for("stopped before serving")
        assert server.end()[0] == 1


@pytest.mark.slow
@pytest.mark.parametrize("closed", ["<&-", ">&-", "<&- >&-"])
def test_closed_standard_files_do_no_harm(tiny_model_path: Path, closed: str) -> None:
    command = f'exec "$0" -m earmark_server --port=0 --log-format=json --model="$1" {closed}'
    process = subprocess.Popen(
        ["/bin/sh", "-c", command, sys.executable, str(tiny_model_path)], stderr=subprocess.PIPE, text=True
    )
    with process:
        assert process.stderr is not None
        for line in process.stderr:
            if json.loads(line)["event"] == "serving":
                break
        process.terminate()
        assert [json.loads(line)["event"] for line in process.stderr] == ["draining", "stopped"]
    assert process.returncode == 0
