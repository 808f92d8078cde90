"""Runs the `earmark` command as a person or a script does: in a process of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import tiny_model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy as np

RATE_HZ = 16_000
WORDS = [(0.5, "low"), (1.5, "mid"), (2.5, "high")]
SECONDS = 4.0


def samples() -> np.ndarray:
    """The words in a little noise, int16 [n]."""
    return (tiny_model.recording(WORDS, SECONDS) * 32768).round().astype("<i2")


def environment(**variables: str) -> dict[str, str]:
    """Give this process' environment without what changes the command, and with `variables`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("EARMARK_", "GRPC_"))}
    return {**kept, "COLUMNS": "100", **variables}


def earmark(*args: str | Path, stdin: bytes = b"", **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command; whatever happens, there is no traceback, and gRPC is quiet."""
    done = subprocess.run(
        [sys.executable, "-m", "earmark_client", *map(str, args)],
        input=stdin,
        capture_output=True,
        timeout=60,
        env=environment(**variables),
        check=False,
    )
    out, err = done.stdout.decode(), done.stderr.decode()
    assert "Traceback" not in err, err
    assert not re.search(r"^[EWI]\d{4} |_cython|\.cc:\d+", err, re.MULTILINE), err
    return subprocess.CompletedProcess(done.args, done.returncode, out, err)


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    """Run some Python, for what cannot be had with the command alone."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment(), check=False)


@contextmanager
def running(*args: str | Path, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run the command while the block runs."""
    with subprocess.Popen(
        [sys.executable, "-m", "earmark_client", *map(str, args)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(**variables),
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def json_lines(output: str) -> list[dict[str, Any]]:
    """Read JSON lines."""
    return [json.loads(line) for line in output.splitlines()]
