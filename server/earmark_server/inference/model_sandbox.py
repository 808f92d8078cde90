"""The model sandbox: validates models in a separate process, where a crash harms nothing else.

A request on standard input is the number of bytes of a model file, 8 bytes, and those bytes. The response is
a line of JSON: the problem of the model, or null. The process ends when there are no more requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from earmark_spotter import ModelError, SpotterModel

from earmark_server.reload import problem_of

if TYPE_CHECKING:
    from types import TracebackType

_VALIDATION_TIMEOUT_S = 60
"""A model that takes longer to load and to run a few times is considered to hang."""

_ORPHAN_MARGIN_S = 10
_MAX_PROBLEM_CHARACTERS = 4000
_LONGEST_LINE_BYTES = 1 << 16
_LENGTH = struct.Struct("<Q")


def warm_up(model: SpotterModel) -> None:
    """Run a model with typical shapes: the first inference with a shape is slow."""
    for batch, steps in ((1, 5), (1, 50), (8, 5)):
        pcm = np.zeros((batch, steps * model.metadata.step_samples), np.float32)
        model.step(pcm, model.initial_states(batch))


async def validate_model(content: bytes) -> None:
    """Load and run a model in a separate process; ModelError if that fails, or takes too long."""
    with ModelSandbox() as sandbox:
        try:
            await asyncio.to_thread(sandbox.validate, content, _VALIDATION_TIMEOUT_S)
        except TimeoutError as error:
            raise ModelError(str(error)) from None


class ModelSandbox:
    """A process that validates models, one after the other, and that is replaced when a model crashes it.

    with ModelSandbox() as sandbox:
        for content in contents:
            sandbox.validate(content, timeout_s=10)
    """

    def __init__(self) -> None:
        """Start the process, which returns at once."""
        self._process = _start()

    def __enter__(self) -> ModelSandbox:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        _end(self._process)

    def validate(self, content: bytes, timeout_s: float) -> None:
        """Load and run a model; ModelError if that fails, and TimeoutError if it takes too long. Blocks."""
        if self._process.poll() is not None:
            _end(self._process)
            self._process = _start()
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        timed_out = threading.Event()

        def end() -> None:
            timed_out.set()
            process.kill()

        timer = threading.Timer(timeout_s, end)
        timer.start()
        line = b""
        try:
            process.stdin.write(_LENGTH.pack(len(content)) + content)
            process.stdin.flush()
            line = process.stdout.readline(_LONGEST_LINE_BYTES)
        except OSError:
            pass  # It has ended.
        finally:
            timer.cancel()
        if line.endswith(b"\n"):
            problem = json.loads(line)
            if problem is not None:
                raise ModelError(problem)
            return
        process.kill()
        code = process.wait()
        if timed_out.is_set():
            raise TimeoutError(f"The model did not load within {timeout_s} s.")
        unnamed = f"signal {-code}" if code < 0 else f"exit code {code}"
        cause = next((each.name for each in signal.Signals if each == -code), unnamed)
        raise ModelError(f"The process that validated the model ended with {cause}.")


def _start() -> subprocess.Popen[bytes]:
    # Not by asyncio: uvloop forks, which gRPC does not support. Popen does not fork, and returns at once.
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "earmark_server.inference.model_sandbox"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    with contextlib.suppress(OSError), process:
        pass  # Its pipes are closed, of which one may be broken.


def _serve(requests: BinaryIO, responses: BinaryIO) -> None:
    while length := requests.read(_LENGTH.size):
        content = requests.read(*_LENGTH.unpack(length))
        # The server ends this process sooner, unless it is gone itself.
        if sys.platform != "win32":
            signal.alarm(_VALIDATION_TIMEOUT_S + _ORPHAN_MARGIN_S)
        responses.write(json.dumps(_problem_of(content)).encode() + b"\n")
        responses.flush()
        if sys.platform != "win32":
            signal.alarm(0)


def _problem_of(content: bytes) -> str | None:
    """Return why a model cannot be used, None if it can."""
    try:
        warm_up(SpotterModel(content))
    except ModelError as error:
        return str(error)[:_MAX_PROBLEM_CHARACTERS]
    except Exception as error:
        return f"The model does not run: {problem_of(error)}"[:_MAX_PROBLEM_CHARACTERS]
    return None


def _main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C at a terminal drains the server, which goes on
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            # A system without memory ends this process first.
            Path("/proc/self/oom_score_adj").write_text("1000")
    # What the runtime prints is no response.
    responses = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    _serve(sys.stdin.buffer, responses)


if __name__ == "__main__":
    _main()
