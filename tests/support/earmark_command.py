"""Runs the `earmark` command, in this process or in another one."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import TYPE_CHECKING, Any, NamedTuple
from unittest import mock

from earmark_cli.__main__ import main

from support import tiny_model
from support.environment import clean_environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy as np

RATE_HZ = 16_000
WORDS = [(0.5, "low"), (1.5, "mid"), (2.5, "high")]
SECONDS = 4.0


class Done(NamedTuple):
    """The exit code and the output of a command."""

    returncode: int
    stdout: str
    stderr: str


def samples() -> np.ndarray:
    """Return the words in a little noise, int16 [n]."""
    return (tiny_model.recording(WORDS, SECONDS) * 32768).round().astype("<i2")


def environment(**variables: str) -> dict[str, str]:
    """Return this process' environment without variables that change the command, and with `variables`."""
    return clean_environment(COLUMNS="100", **variables)


def earmark(*args: str | Path, stdin: bytes = b"", pipe: bool = False, **variables: str) -> Done:
    """Run the command inside this process, which is fast.

    Its standard input is a file with the bytes `stdin`, or a pipe, which cannot seek.
    """
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", newline="") for _ in range(2))
    with (
        mock.patch.dict(os.environ, environment(**variables), clear=True),
        # Of a command that takes longer than 20 s, as on a busy machine, lines of progress would be printed.
        mock.patch("earmark_audio.progress._FIRST_LINE_S", 3600.0),
        (_pipe if pipe else _file)(stdin) as descriptor,
        _standard_input(descriptor),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            code = main([*map(str, args)])
        except SystemExit as stop:  # argparse
            code = stop.code
    return Done(code, *(_text(one) for one in (out, err)))


def _text(stream: io.TextIOWrapper) -> str:
    stream.flush()
    assert isinstance(stream.buffer, io.BytesIO)
    return stream.buffer.getvalue().decode()


def earmark_process(*args: str | Path, **variables: str) -> Done:
    """Run the command in a process; its output never has a traceback or a message of gRPC."""
    done = subprocess.run(
        [sys.executable, "-m", "earmark_cli", *map(str, args)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        env=environment(**variables),
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert not re.search(r"^[EWI]\d{4} |_cython|\.cc:\d+", done.stderr, re.MULTILINE), done.stderr
    return Done(done.returncode, done.stdout, done.stderr)


@contextmanager
def _file(data: bytes) -> Iterator[int]:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.seek(0)
        yield file.fileno()


@contextmanager
def _pipe(data: bytes) -> Iterator[int]:
    reading, writing = os.pipe()

    def write() -> None:
        with suppress(BrokenPipeError), os.fdopen(writing, "wb") as file:
            file.write(data)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield reading
    finally:
        os.close(reading)
        writer.join()


@contextmanager
def _standard_input(descriptor: int) -> Iterator[None]:
    """Replace file descriptor 0 while the block runs."""
    saved = os.dup(0)
    try:
        os.dup2(descriptor, 0)
        yield
    finally:
        os.dup2(saved, 0)
        os.close(saved)


def python_process(code: str) -> subprocess.CompletedProcess[str]:
    """Run Python code, for cases that the command alone cannot reach."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment(), check=False)


@contextmanager
def running(*args: str | Path, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run the command while the block runs."""
    with subprocess.Popen(
        [sys.executable, "-m", "earmark_cli", *map(str, args)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(**variables),
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def without_time(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return JSON lines without the time of day."""
    return [{key: value for key, value in line.items() if key != "time"} for line in lines]


def json_lines(output: str) -> list[dict[str, Any]]:
    """Parse JSON lines."""
    return [json.loads(line) for line in output.splitlines()]
