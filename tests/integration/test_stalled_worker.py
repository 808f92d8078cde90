"""A worker hangs in the middle of streams: they resume on another one, and the worker is replaced."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from earmark_client import Detection, Resumed, Started
from support.hang_injection import Hanging
from support.observed_streams import Stream, assert_same_events, demo, run, run_undisturbed
from support.restartable_server import RestartableServer

if TYPE_CHECKING:
    from pathlib import Path

    from earmark_client import Event


@pytest.mark.slow
@pytest.mark.parametrize("flavour", ["async", "sync"])
def test_a_stream_on_a_hanging_worker_resumes_on_another(
    flavour: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging = Hanging(tmp_path)
    for name, value in hanging.environment.items():
        monkeypatch.setenv(name, value)
    chunks = demo()
    arguments = ("--workers=2", "--stall-timeout-s=0.5", "--stall-exit-s=0.5")
    with RestartableServer(None, *arguments) as server:
        expected = run_undisturbed(server.address, chunks)
        stream = Stream(chunks, speed=8.0)
        hung: list[int] = []

        def hang(event: Event) -> None:
            if isinstance(event, Detection) and len(stream.of(Detection)) == 3:
                (started,) = stream.of(Started)
                assert isinstance(started, Started)
                while (line := server.wait_for("detection"))["request_id"] != started.request_id:
                    pass
                hung.append(line["worker"])
                hanging.say(line["worker"], "step")

        stream.on_event = hang
        run(flavour, server.address, [stream])
        assert server.wait_for("exiting")["worker"] == hung[0]
        ended = server.wait_for("worker ended")
        assert (ended["worker"], ended["exit_code"]) == (hung[0], 70)
        assert server.wait_for("worker serving")["worker"] != hung[0]
    assert_same_events(stream, expected)
    assert stream.of(Resumed)
