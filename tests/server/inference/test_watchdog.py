"""Stalls of the engine and of the event loop: a fake engine, and real servers that are made to hang."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import queue
import signal
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from earmark.v1 import keyword_spotting_service_pb2 as rpcs
from earmark.v1 import keyword_spotting_service_pb2_grpc as stubs
from earmark_server.inference.counters import EngineCounters
from earmark_server.inference.watchdog import EXIT_CODE, Watchdog
from earmark_server.settings import Settings
from grpc import StatusCode
from grpc_health.v1 import health_pb2, health_pb2_grpc
from support.deadlines import DEADLINE_S
from support.hang_injection import Hanging
from support.server_process import ServerProcess
from support.server_rig import audio, chunks, config, detections, failure, pcm, run, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
PCM = pcm()


@dataclass
class FakeEngine:
    counters: EngineCounters = field(default_factory=EngineCounters)
    has_due: bool = False
    thread: threading.Thread = field(default_factory=threading.current_thread)


class Checks:
    """A watchdog that checks only when the test calls it."""

    def __init__(self) -> None:
        self.engine: Any = FakeEngine()
        self.said: list[bool] = []
        self.watchdog = Watchdog(
            self.engine,
            Settings(),
            self.said.append,
            loop=asyncio.get_running_loop(),
            loop_thread=threading.current_thread(),
            exits=False,
        )

    async def run(self, count: int) -> list[bool]:
        for _ in range(count):
            self.watchdog.check()
            # The callbacks that the check scheduled on the loop run before this returns.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        said, self.said[:] = self.said[:], []
        return said


def test_an_idle_engine_is_not_stalled() -> None:
    async def scenario() -> None:
        assert await Checks().run(100) == []

    run(scenario)


def test_a_stalled_engine_is_reported_once_and_so_is_its_recovery() -> None:
    async def scenario() -> None:
        checks = Checks()
        for busy, due in ((True, False), (False, True), (True, True)):
            checks.engine.counters.is_busy, checks.engine.has_due = busy, due
            assert await checks.run(7) == []
            assert await checks.run(100) == [False]
            checks.engine.counters.heartbeat += 1
            assert await checks.run(1) == [True]
            checks.engine.counters.is_busy = checks.engine.has_due = False
            assert await checks.run(10) == []
        assert checks.watchdog.stalls == 3

    run(scenario)


def test_an_unexpected_error_does_not_end_the_checks(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    errors: list[Exception] = [MemoryError(), RuntimeError("a fault")]
    checked = threading.Event()

    def check(_: Watchdog) -> None:
        if errors:
            raise errors.pop()
        checked.set()

    monkeypatch.setattr(Watchdog, "check", check)

    async def scenario() -> None:
        watchdog = Checks().watchdog
        watchdog._interval_s = 0.001
        watchdog.start()
        assert await asyncio.to_thread(checked.wait, DEADLINE_S)
        watchdog.stop()

    run(scenario)
    assert caplog.messages.count("the watchdog has failed") == 2


def test_a_busy_engine_that_makes_progress_is_not_stalled() -> None:
    async def scenario() -> None:
        checks = Checks()
        checks.engine.counters.is_busy = checks.engine.has_due = True
        for _ in range(20):
            assert await checks.run(7) == []
            checks.engine.counters.heartbeat += 1

    run(scenario)


def test_a_blocked_event_loop_does_not_count_as_a_stalled_engine(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "earmark_server")

    async def scenario() -> None:
        checks = Checks()
        checks.engine.has_due = True
        for _ in range(20):
            checks.watchdog.check()
        assert [record.message for record in caplog.records] == ["event loop stalled"]
        assert await checks.run(2) == []
        assert [record.message for record in caplog.records] == ["event loop stalled", "event loop recovered"]

    run(scenario)


class Stalling(ServerProcess):
    """A server that hangs on command, and a connection to it."""

    def __init__(self, model: Path, hanging: Hanging, *arguments: str) -> None:
        super().__init__(
            "--port=0", f"--model={model}", "--log-format=json", *arguments, **hanging.environment
        )
        self.hanging = hanging
        self._channel: grpc.Channel | None = None

    def __exit__(self, *details: object) -> None:
        if self._channel is not None:
            self._channel.close()
        super().__exit__(*details)

    def connect(self) -> None:
        port = self.wait_for("listening")["port"]
        self.wait_for("serving")
        self._channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        self.stub = stubs.KeywordSpottingServiceStub(self._channel)
        self.health = health_pb2_grpc.HealthStub(self._channel)

    def say(self, word: str) -> None:
        self.hanging.say(self.process.pid, word)

    def release(self) -> None:
        self.hanging.release(self.process.pid)

    @contextlib.contextmanager
    def stream(self) -> Iterator[tuple[queue.SimpleQueue[Any], Any]]:
        """Open a stream; yield the queue for its requests, and the call."""
        requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        requests.put(config())
        call = self.stub.StreamingSpot(iter(requests.get, None), timeout=DEADLINE_S)
        assert next(call).HasField("started")
        try:
            yield requests, call
        finally:
            call.cancel()
            requests.put(None)


@pytest.fixture
def hanging(tmp_path: Path) -> Hanging:
    return Hanging(tmp_path)


def failed(call: Any) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        for _ in call:
            pass
    return caught.value


def test_a_stalled_engine_is_reported_and_may_recover(tiny_model_path: Path, hanging: Hanging) -> None:
    with Stalling(tiny_model_path, hanging, "--stall-timeout-s=0.5", "--stall-exit-s=600") as server:
        server.connect()
        watch = server.health.Watch(health_pb2.HealthCheckRequest(), timeout=DEADLINE_S)
        assert next(watch).status == SERVING
        with server.stream() as (requests, call), server.stream() as (_, quiet):
            server.say("step")
            requests.put(audio(PCM))
            assert next(watch).status == NOT_SERVING
            for one in (call, quiet):
                error = failed(one)
                assert error.code() == StatusCode.UNAVAILABLE
                assert "Resume on another one" in error.details()
        stalled = server.wait_for("engine stalled")
        # The innermost frame comes first: the hang, and below it the engine.
        assert "hang_while_said" in stalled["stack"][0]
        assert any(
            line.endswith("EngineThread._infer") and "engine_thread.py:" in line for line in stalled["stack"]
        )
        refused = failed(server.stub.StreamingSpot(iter([config()]), timeout=DEADLINE_S))
        assert refused.code() == StatusCode.UNAVAILABLE
        # Calls that need no engine are answered.
        assert server.stub.ListModels(rpcs.ListModelsRequest(), timeout=DEADLINE_S).models[0].name == "tiny"
        server.release()
        assert next(watch).status == SERVING
        server.wait_for("engine recovered")
        requests = iter([config(), *chunks(PCM)])
        assert len(detections(server.stub.StreamingSpot(requests, timeout=DEADLINE_S))) == 4
        watch.cancel()
        server.process.terminate()
        assert server.end()[0] == 0


def test_an_engine_that_stays_stalled_ends_the_process(tiny_model_path: Path, hanging: Hanging) -> None:
    with Stalling(tiny_model_path, hanging, "--stall-timeout-s=0.5", "--stall-exit-s=0.5") as server:
        server.connect()
        server.say("step")
        with server.stream() as (requests, call):
            requests.put(audio(PCM))
            assert failed(call).code() == StatusCode.UNAVAILABLE
        exiting = server.wait_for("exiting")
        assert (exiting["because"], exiting["exit_code"]) == ("engine stalled", EXIT_CODE)
        assert server.end()[0] == EXIT_CODE


def test_a_dead_engine_ends_streams_and_process(tiny_model_path: Path, hanging: Hanging) -> None:
    with Stalling(tiny_model_path, hanging, "--stall-exit-s=86400") as server:
        server.connect()
        server.say("die")
        with server.stream() as (requests, call), server.stream() as (_, quiet):
            requests.put(audio(PCM))
            for one in (call, quiet):
                assert failed(one).code() == StatusCode.UNAVAILABLE
        server.wait_for("engine died")
        assert server.wait_for("exiting")["because"] == "engine died"
        assert server.end()[0] == EXIT_CODE


def test_a_blocked_event_loop_ends_the_process(tiny_model_path: Path, hanging: Hanging) -> None:
    with Stalling(tiny_model_path, hanging, "--stall-timeout-s=0.5", "--stall-exit-s=0.5") as server:
        server.connect()
        server.say("lookup")
        call = server.stub.ListModels.future(rpcs.ListModelsRequest(), timeout=DEADLINE_S)
        stalled = server.wait_for("event loop stalled")
        assert any(line.endswith("KeywordSpottingService.list_models") for line in stalled["stack"])
        assert server.wait_for("exiting")["because"] == "event loop stalled"
        assert server.end()[0] == EXIT_CODE
        assert call.code() == StatusCode.UNAVAILABLE


@pytest.mark.slow
@pytest.mark.parametrize("signals", [1, 2])
def test_a_server_that_does_not_stop_ends_the_process(
    signals: int, tiny_model_path: Path, hanging: Hanging
) -> None:
    grace_s = 0 if signals == 1 else 600
    with Stalling(tiny_model_path, hanging, f"--drain-grace-s={grace_s}") as server:
        server.connect()
        server.say("stop")
        with server.stream():
            server.process.terminate()
            server.wait_for("draining")
            if signals == 2:
                server.process.terminate()
            exiting = server.wait_for("exiting")
        assert (exiting["because"], exiting["exit_code"]) == ("the server did not stop", EXIT_CODE)
        assert server.end()[0] == EXIT_CODE


@pytest.mark.slow
def test_a_suspended_process_continues_without_a_stall(tiny_model_path: Path, hanging: Hanging) -> None:
    with Stalling(tiny_model_path, hanging, "--stall-timeout-s=2", "--stall-exit-s=0") as server:
        server.connect()
        with server.stream() as (requests, call):
            for request in chunks(PCM[: len(PCM) // 2]):
                requests.put(request)
            server.process.send_signal(signal.SIGSTOP)
            for request in chunks(PCM[len(PCM) // 2 :]):
                requests.put(request)
            # Longer than the stall timeout.
            time.sleep(3)
            server.process.send_signal(signal.SIGCONT)
            requests.put(None)
            assert len(detections(call)) == 4
        server.process.terminate()
        code, said = server.end()
        assert code == 0
        assert "stalled" not in said


def test_a_server_in_another_program_does_not_end_it(
    tiny_model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path, stall_timeout_s=0.2, stall_exit_s=0) as rig:

            def die(*_: object) -> None:
                raise SystemExit

            monkeypatch.setattr(rig.server._engine._worker, "_run_round", die)
            monkeypatch.setattr(os, "_exit", die)
            for requests in ((config(), audio(PCM)), (config(),)):
                error = await failure(rig.stream(*requests))
                assert (error.code, error.reason) == (StatusCode.UNAVAILABLE, "ENGINE_STALLED")
            request = health_pb2.HealthCheckRequest()
            status = await health_pb2_grpc.HealthStub(rig.channel).Check(request, timeout=DEADLINE_S)
            assert status.status == NOT_SERVING

    run(scenario)
