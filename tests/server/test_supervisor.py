"""Several workers on one port, with real processes and connections, some of which are killed."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from typing import TYPE_CHECKING

import grpc
import pytest
from earmark.v1 import keyword_spotting_service_pb2 as rpcs
from grpc_health.v1 import health_pb2, health_pb2_grpc
from support.deadlines import DEADLINE_S
from support.server_process import ServerProcess
from support.server_rig import detections, duration, seconds
from support.worker_processes import PCM, Live, Workers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


CUT = round(2.6 * 32_000)  # in bytes; three of four keywords come before it
SERVING = health_pb2.HealthCheckResponse.SERVING


@pytest.fixture
def workers(tiny_model_path: Path) -> Iterator[Workers]:
    with Workers(tiny_model_path) as process:
        process.serve()
        yield process


def test_each_worker_gets_a_share_of_the_connections(workers: Workers) -> None:
    for connection in workers.connect_to(*workers.pids):
        health = health_pb2_grpc.HealthStub(connection.channel)
        assert health.Check(health_pb2.HealthCheckRequest(), timeout=DEADLINE_S).status == SERVING


def test_the_supervisor_loads_neither_grpc_nor_a_model(workers: Workers) -> None:
    def loaded(pid: int) -> set[str]:
        with open(f"/proc/{pid}/maps", encoding="utf-8") as maps:
            text = maps.read()
        return {name for name in ("cygrpc", "onnxruntime") if name in text}

    assert loaded(workers.process.pid) == set()
    for pid in workers.pids:
        assert loaded(pid) == {"cygrpc", "onnxruntime"}


def test_only_the_streams_of_a_killed_worker_break_and_they_resume_on_another(workers: Workers) -> None:
    killed, other = workers.pids
    to_killed, to_other = workers.connect_to(killed, other)
    whole = Live(to_other).end(PCM)
    assert len(whole) == 4

    streams = [Live(connection) for connection in (to_killed, to_other) for _ in range(3)]
    for stream in streams:
        stream.send(PCM[:CUT])
        stream.until(lambda event: seconds(event.progress.decided_offset) >= 2)
    os.kill(killed, signal.SIGKILL)

    for stream in streams:
        if stream.worker == other:
            assert stream.end(PCM[CUT:]) == whole
            continue
        with pytest.raises(grpc.RpcError) as caught:
            stream.end(PCM[CUT:])
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        newest = stream.progress()
        begin = round(seconds(newest.replay_offset) * 16_000) * 2
        assert 0 < begin < CUT
        point = rpcs.ResumePoint(start_offset=newest.replay_offset, resume_token=newest.resume_token)
        resumed = Live(to_other, resume=point)
        rest = resumed.end(PCM[begin:])
        # Ids, offsets and confidences equal those of a stream that does not break. The resumed stream has
        # exactly the detections that were not yet decided.
        decided_s = seconds(newest.decided_offset)
        assert rest == [each for each in whole if seconds(each.end_offset) > decided_s]
        assert 0 < len(rest) < 4
        assert list({each.detection_id: each for each in detections(stream.events) + rest}.values()) == whole
        assert resumed.events[-1].ended.audio_duration == duration(4)

    died = workers.wait_for("worker ended")
    assert (died["worker"], died["signal"]) == (killed, "SIGKILL")
    successor = workers.wait_for("worker started")["worker"]
    workers.wait_for("worker serving", worker=successor)
    workers.connect_to(successor, other)
    workers.process.terminate()
    assert workers.end()[0] == 0


def test_a_worker_that_ends_with_a_signal_without_a_name_is_replaced(workers: Workers) -> None:
    number = signal.SIGRTMIN + 6
    os.kill(workers.pids[0], number)
    ended = workers.wait_for("worker ended")
    assert (ended["worker"], ended["signal"]) == (workers.pids[0], str(number))
    workers.wait_for("worker started")


def test_workers_share_the_keys_of_resume_tokens(tiny_model_path: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("0123456789abcdef" * 4)
    with Workers(tiny_model_path, f"--resume-key-file={keys}") as workers:
        workers.serve()
        to_one, to_other = workers.connect_to(*workers.pids)
        stream = Live(to_one)
        stream.send(PCM[:CUT])
        stream.until(lambda event: event.progress.decided_offset.seconds >= 2)
        newest = stream.progress()
        point = rpcs.ResumePoint(start_offset=newest.replay_offset, resume_token=newest.resume_token)
        begin = newest.replay_offset.seconds * 32_000
        assert Live(to_other, resume=point).end(PCM[begin:])[-1] == stream.end(PCM[CUT:])[-1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "every_process", [False, True], ids=["to the supervisor", "to every process of the service"]
)
def test_a_signal_drains_all_workers(workers: Workers, every_process: bool) -> None:
    streams = [Live(connection) for connection in workers.connect_to(*workers.pids)]
    for stream in streams:
        stream.send(PCM[:CUT])
        stream.until(lambda event: event.HasField("detection"))
    for pid in workers.pids if every_process else ():
        os.kill(pid, signal.SIGTERM)
    workers.process.terminate()
    for stream in streams:
        stream.until(lambda event: event.progress.draining)
        assert len(stream.end(PCM[CUT:])) == 4
    lines = list(workers.lines())
    for pid in workers.pids:
        own = [line["event"] for line in lines if line.get("worker") == pid]
        events = [event for event in own if event != "detection"]
        assert sorted(events) == ["call ended", "draining", "stopped", "worker ended"]
    assert workers.end()[0] == 0


@pytest.mark.slow
def test_a_second_signal_stops_all_workers_at_once(tiny_model_path: Path) -> None:
    with Workers(tiny_model_path, "--drain-grace-s=3600") as workers:
        workers.serve()
        stream = Live(workers.connect())
        stream.until(lambda event: event.HasField("started"))
        workers.process.send_signal(signal.SIGINT)
        stream.until(lambda event: event.progress.draining)
        workers.process.send_signal(signal.SIGINT)
        with pytest.raises(grpc.RpcError):
            stream.until(lambda _: False)
        assert workers.end()[0] == 1


@pytest.mark.slow
def test_a_worker_that_does_not_drain_is_killed(workers: Workers) -> None:
    stuck = workers.pids[0]
    os.kill(stuck, signal.SIGSTOP)
    workers.process.terminate()
    workers.wait_for("worker ended", worker=workers.pids[1], exit_code=0)
    workers.process.terminate()
    workers.wait_for("worker ended", worker=stuck, signal="SIGKILL")
    assert workers.end()[0] == 1


@pytest.mark.slow
def test_workers_stop_when_their_supervisor_is_gone(workers: Workers, tiny_model_path: Path) -> None:
    stream = Live(workers.connect())
    stream.until(lambda event: event.HasField("started"))
    workers.process.kill()
    # The log ends when the last process has ended.
    stopped = [line["worker"] for line in workers.lines() if line["event"] == "stopped"]
    assert sorted(stopped) == sorted(workers.pids)
    with pytest.raises(grpc.RpcError):
        stream.end()
    arguments = (f"--port={workers.port}", f"--model={tiny_model_path}", "--log-format=json")
    with ServerProcess(*arguments) as next_one:
        assert next_one.wait_for("listening")["port"] == workers.port


@pytest.mark.slow
def test_a_worker_that_cannot_restart_is_retried_with_growing_delays(
    tiny_model_path: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model.onnx"
    shutil.copy(tiny_model_path, model)
    with Workers(model) as workers:
        workers.serve()
        bad = tmp_path / "bad.onnx"
        bad.write_bytes(b"not a model")
        bad.replace(model)
        os.kill(workers.pids[0], signal.SIGKILL)
        ends = [workers.wait_for("worker ended") for _ in range(3)]
        assert [end["restart_in_s"] for end in ends] == [0.5, 1.0, 2.0]
        assert [end.get("exit_code") for end in ends] == [None, 1, 1]
        assert all("not an ONNX model" in end["problem"] for end in ends[1:])
        assert workers.connect().worker == workers.pids[1]
        shutil.copy(tiny_model_path, bad)
        bad.replace(model)
        workers.connect_to(workers.wait_for("worker serving")["worker"])


@pytest.mark.slow
def test_an_invalid_model_is_reported_once_for_all_workers(tmp_path: Path) -> None:
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"not a model")
    with ServerProcess("--workers=3", "--port=0", f"--model={bad}") as process:
        code, output = process.end()
    assert code == 1
    assert output.count("cannot start") == output.count("not an ONNX model") == 1
    assert "Traceback" not in output


def test_a_worker_that_dies_before_it_is_serving_ends_the_supervisor(
    tiny_model_path: Path, tmp_path: Path
) -> None:
    # Python imports this module before any other.
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        "if '--supervised-worker' in sys.orig_argv: os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    arguments = ("--workers=2", "--port=0", f"--model={tiny_model_path}", "--log-format=json")
    paths = filter(None, (str(tmp_path), os.environ.get("PYTHONPATH")))
    with ServerProcess(*arguments, PYTHONPATH=os.pathsep.join(paths)) as process:
        problem = process.wait_for("cannot start")["problem"]
        assert problem == "A worker ended before it was serving (SIGKILL)."
        assert process.end()[0] == 1


def test_a_port_in_use_is_not_shared(workers: Workers, tiny_model_path: Path) -> None:
    def assert_rejected(port: int, count: int) -> None:
        with ServerProcess(f"--workers={count}", f"--port={port}", f"--model={tiny_model_path}") as process:
            code, output = process.end()
        assert code == 1
        assert f"Cannot listen on 127.0.0.1:{port}: the port is in use" in output
        assert "worker started" not in output
        assert "Traceback" not in output

    for count in (1, 2):
        assert_rejected(workers.port, count)
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        assert_rejected(other.getsockname()[1], 2)


def test_a_host_that_cannot_be_bound_is_reported() -> None:
    # An address that no machine has (RFC 5737), and a name that does not exist (RFC 6761).
    for host, reason in (("192.0.2.1", "Cannot assign requested address"), ("no.invalid", "Name or service")):
        with ServerProcess("--workers=2", f"--host={host}", "--insecure", "--port=0") as process:
            code, output = process.end()
        assert code == 1
        assert f"Cannot listen on {host}:0: {reason}" in output


@pytest.mark.slow
def test_workers_share_the_port_of_a_name_and_of_all_addresses(tiny_model_path: Path) -> None:
    for host in ("localhost", "0.0.0.0"):
        arguments = ("--workers=2", f"--host={host}", "--insecure", "--port=0", f"--model={tiny_model_path}")
        with ServerProcess(*arguments, "--log-format=json") as process:
            port = process.wait_for("serving")["port"]
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                health = health_pb2_grpc.HealthStub(channel)
                assert health.Check(health_pb2.HealthCheckRequest(), timeout=DEADLINE_S).status == SERVING
            process.process.terminate()
            assert process.end()[0] == 0
