"""A model is replaced while streams run, and their process is killed: they resume on the old model."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from typing import TYPE_CHECKING

import earmark_spotter
import onnx
import pytest
from earmark_client import Progress, Resumed, Started
from support.deadlines import DEADLINE_S
from support.observed_streams import (
    PausedStream,
    assert_same_events,
    demo,
    run,
    run_in_background,
    run_undisturbed,
)
from support.restartable_server import RestartableServer

if TYPE_CHECKING:
    from pathlib import Path

    from earmark_client import Event

BUNDLED = os.path.join(*earmark_spotter.__path__, "models", "default.onnx")


class HalfStream(PausedStream):
    """A paused stream that says when it has made progress."""

    def __init__(self) -> None:
        super().__init__(demo(), speed=8.0)
        self.has_begun = threading.Event()
        self.on_event = self._notice

    def _notice(self, event: Event) -> None:
        if isinstance(event, Progress):
            self.has_begun.set()


def replace(path: Path) -> None:
    model = onnx.load(path)
    model.metadata_props.add(key="another", value="file")
    onnx.save(model, path.with_name("new.onnx"))
    path.with_name("new.onnx").replace(path)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_streams_resume_after_their_model_was_replaced_and_the_process_killed(
    workers: int, tmp_path: Path
) -> None:
    path = tmp_path / "model.onnx"
    shutil.copyfile(BUNDLED, path)
    with RestartableServer(path, f"--workers={workers}") as server:
        expected = run_undisturbed(server.address, demo())
        streams = [HalfStream() for _ in range(8)]

        def fault() -> None:
            for stream in streams:
                assert stream.has_begun.wait(DEADLINE_S)
            begun = streams[0].of(Started)[0]
            assert isinstance(begun, Started)
            detected = server.wait_for("detection", request_id=begun.request_id)
            replace(path)
            pids = [server.wait_for("model replaced").get("worker") for _ in range(workers)]
            if workers == 1:
                server.kill()
                server.start()
            else:
                # The connection of the client is to one of them.
                os.kill(detected["worker"], signal.SIGKILL)
                assert detected["worker"] in pids
            for stream in streams:
                stream.may_end.set()

        faulted = run_in_background(fault)
        run("async", server.address, list(streams))
        faulted.result(DEADLINE_S)
    for stream in streams:
        assert_same_events(stream, expected)
    assert any(stream.of(Resumed) for stream in streams)
