"""The limit of open files is reached: open connections are served, new ones wait until one closes."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from earmark_client import Detection, Health, Recording, SyncClient
from support.deadlines import DEADLINE_S
from support.server_process import ServerProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

from benchmarks.loadgen import http2_frames as frames

DEMO = Path(__file__).resolve().parents[2] / "client/earmark_cli/samples/demo.flac"
CHUNK_S = 0.1

if not hasattr(resource, "prlimit"):
    pytest.skip("limits of another process are set by prlimit, which is Linux's", allow_module_level=True)


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.slow
def test_open_connections_are_served_and_new_ones_wait_without_a_busy_loop() -> None:
    all_connected = threading.Event()

    def audio() -> Iterator[bytes]:
        with Recording(DEMO, block_s=CHUNK_S) as recording:
            for i, chunk in enumerate(recording):
                if i == 10:
                    assert all_connected.wait(DEADLINE_S)
                yield bytes(chunk)

    with ServerProcess("--port=0", "--log-format=json") as server:
        port = server.wait_for("listening")["port"]
        server.wait_for("serving")
        pid, address = server.process.pid, f"127.0.0.1:{port}"
        crowd = []
        with SyncClient(address) as client, SyncClient(address) as late:
            words = client.stream(audio(), sample_rate_hz=16_000, resume_within_s=0)
            events = [next(words)]
            opened = len(os.listdir(f"/proc/{pid}/fd"))
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (opened + 8, opened + 8))
            try:
                crowd += [socket.create_connection(("127.0.0.1", port), DEADLINE_S) for _ in range(40)]
                begun_s, used_s = time.monotonic(), cpu_s(pid)
                all_connected.set()
                events += words
                assert sum(isinstance(event, Detection) for event in events) == 13
                # The stream itself needs a tenth of a second of CPU; a busy loop would use all of it.
                time.sleep(2)
                assert cpu_s(pid) - used_s < 0.5 * (time.monotonic() - begun_s)
            finally:
                for one in crowd:
                    one.close()
            assert late.health() is Health.SERVING
        server.process.terminate()
        assert server.process.wait(DEADLINE_S) == 0


@pytest.mark.slow
def test_a_flood_is_closed_when_no_descriptor_is_left() -> None:
    update = frames.frame(frames.WINDOW, 0, 0, b"\0\0\0\1")
    with ServerProcess("--port=0", "--log-format=json") as server, contextlib.ExitStack() as opened:
        port = server.wait_for("listening")["port"]
        server.wait_for("serving")
        pid = server.process.pid

        def connect() -> socket.socket:
            return opened.enter_context(socket.create_connection(("127.0.0.1", port), DEADLINE_S))

        flooding = connect()
        flooding.sendall(frames.PREFACE + frames.frame(frames.SETTINGS, 0, 0, b""))
        flooding.recv(1)
        count = len(os.listdir(f"/proc/{pid}/fd"))
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (count + 8, count + 8))
        for _ in range(40):
            connect()
        time.sleep(2)  # the guard checks an idle process twice in a second
        flooding.settimeout(5)
        # Once the server has shut the connection down, nobody reads it: sending ends, or waits for ever.
        with contextlib.suppress(ConnectionError, TimeoutError):
            end_s = time.monotonic() + DEADLINE_S
            while time.monotonic() < end_s:  # without a pause: a fast server is not busy otherwise
                flooding.sendall(update * 20_000)  # which the server does not answer
        server.wait_for("flooding connections closed")
