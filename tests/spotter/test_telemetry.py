"""The telemetry of ONNX Runtime's official builds is disabled."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

LISTEN = """
import os, sys
import numpy as np
from earmark_spotter import Spotter

spotter = Spotter.load(sys.argv[1])
spotter.feed(np.zeros(16000, np.float32))
spotter.flush()
for fd in os.listdir("/proc/self/fd"):
    try:
        target = os.readlink(f"/proc/self/fd/{fd}")
    except FileNotFoundError:
        continue
    assert not target.startswith("socket:"), target
"""


def spot(tiny_model_path: Path, home: Path, *wrapper: str) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
    environment = {key: value for key, value in environment.items() if not key.startswith("XDG_")}
    environment |= {"HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
    result = subprocess.run(
        [*wrapper, sys.executable, "-c", LISTEN, str(tiny_model_path)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr


def test_spotting_leaves_no_trace_in_the_home_directory_and_opens_no_socket(
    tiny_model_path: Path, tmp_path: Path
) -> None:
    # With telemetry enabled, the import alone writes a device id and a queue of events to the home directory.
    spot(tiny_model_path, tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_spotting_makes_no_network_call(tiny_model_path: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    home = tmp_path / "home"
    home.mkdir()
    spot(tiny_model_path, home, "strace", "-f", "-e", "trace=socket,connect,sendto", "-o", str(trace))
    calls = [line for line in trace.read_text().splitlines() if "AF_INET" in line]
    assert calls == []
