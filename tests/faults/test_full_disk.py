"""The log cannot be written: the service continues."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from pathlib import Path

import pytest
from earmark_client import Detection, EarmarkError, Health, Recording, SyncClient
from support.deadlines import DEADLINE_S
from support.environment import clean_environment
from support.ports import free_port

DEMO = Path(__file__).resolve().parents[2] / "client/earmark_cli/samples/demo.flac"
FULL = Path("/dev/full")


@pytest.mark.slow
@pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_server_that_cannot_write_its_log_serves_and_drains(workers: int) -> None:
    port = free_port()
    command = [sys.executable, "-m", "earmark_server", f"--port={port}", f"--workers={workers}"]
    with FULL.open("wb") as log:
        server = subprocess.Popen([*command, "--log-level=debug"], stderr=log, env=clean_environment())
    try:
        with SyncClient(f"127.0.0.1:{port}") as client:
            deadline_s = time.monotonic() + DEADLINE_S
            while time.monotonic() < deadline_s:
                with contextlib.suppress(EarmarkError):
                    if client.health() is Health.SERVING:
                        break
                time.sleep(0.05)
            for _ in range(3):
                with Recording(DEMO) as audio:
                    events = list(client.stream(audio, sample_rate_hz=audio.sample_rate_hz))
                assert sum(isinstance(event, Detection) for event in events) == 13
        server.terminate()
        assert server.wait(DEADLINE_S) == 0
    finally:
        server.kill()
        server.wait()
