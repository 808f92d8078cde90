"""wyoming-satellite detects a wake word with the bridge.

It pins a version of the package wyoming, so it has an environment of its own: EARMARK_SATELLITE_PYTHON is
the Python of that environment.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from support.deadlines import DEADLINE_S
from support.earmark_command import environment, running, samples
from support.ports import free_port

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("wyoming")
PYTHON = os.environ.get("EARMARK_SATELLITE_PYTHON")

# Plays a recording in real time, once, and then silence.
MICROPHONE = """
import pathlib, sys, time
data = pathlib.Path(sys.argv[1]).read_bytes()
while True:
    block, data = data[:2048].ljust(2048, b"\\0"), data[2048:]
    sys.stdout.buffer.write(block)
    sys.stdout.buffer.flush()
    time.sleep(0.064)
"""


@pytest.mark.skipif(PYTHON is None, reason="EARMARK_SATELLITE_PYTHON is not set")
def test_a_satellite_wakes_up(address: str, tmp_path: Path) -> None:
    (tmp_path / "speech.raw").write_bytes(samples().tobytes())
    microphone = tmp_path / "microphone.py"
    microphone.write_text(MICROPHONE)
    detected = tmp_path / "detected"
    detection = tmp_path / "detection"
    detection.write_text(f"#!/bin/sh\ncat > {detected}.new && mv {detected}.new {detected}\n")
    detection.chmod(0o755)
    wake_port, own_port = free_port(), free_port()
    command = [
        str(PYTHON),
        "-m",
        "wyoming_satellite",
        f"--uri=tcp://127.0.0.1:{own_port}",
        "--no-zeroconf",
        f"--mic-command={sys.executable} {microphone} {tmp_path / 'speech.raw'}",
        "--mic-command-samples-per-chunk=1024",
        f"--wake-uri=tcp://127.0.0.1:{wake_port}",
        "--wake-word-name=mid",
        f"--detection-command={detection}",
    ]
    with running("wyoming", "--server", address, "--uri", f"tcp://127.0.0.1:{wake_port}") as bridge:
        assert bridge.stderr is not None
        assert b"serving satellites" in bridge.stderr.readline()
        with subprocess.Popen(
            command,
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as satellite:
            try:
                with home_assistant(own_port):
                    deadline_s = time.monotonic() + DEADLINE_S
                    while not detected.exists():
                        assert time.monotonic() < deadline_s
                        assert satellite.poll() is None
                        time.sleep(0.05)
            finally:
                os.killpg(satellite.pid, 9)
        assert "mid" in detected.read_text()


def home_assistant(port: int) -> socket.socket:
    """Connect as Home Assistant does, which makes the satellite listen."""
    deadline_s = time.monotonic() + DEADLINE_S
    while True:
        try:
            connection = socket.create_connection(("127.0.0.1", port), 1)
        except OSError:
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
            continue
        connection.sendall(b'{"type": "run-satellite"}\n')
        return connection
