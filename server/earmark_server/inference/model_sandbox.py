"""The model sandbox: validates a model in a separate process, where a crash harms nothing else."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from signal import Signals

import numpy as np
from earmark_spotter import ModelError, SpotterModel

_VALIDATION_TIMEOUT_S = 60
"""A model that takes longer to load and to run a few times is considered to hang."""


def warm_up(model: SpotterModel) -> None:
    """Run a model with typical shapes: the first inference with a shape is slow."""
    for batch, steps in ((1, 5), (1, 50), (8, 5)):
        pcm = np.zeros((batch, steps * model.metadata.step_samples), np.float32)
        model.step(pcm, model.initial_states(batch))


async def validate_model(content: bytes) -> None:
    """Load and run a model in a separate process; ModelError if that fails, or takes too long."""
    # Not by asyncio: uvloop forks, which gRPC does not support. Popen does not fork, and returns at once.
    with subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-P", "-m", "earmark_server.inference.model_sandbox"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            output, _ = await asyncio.to_thread(process.communicate, content, _VALIDATION_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise ModelError(f"The model did not load within {_VALIDATION_TIMEOUT_S} s.") from None
        finally:
            process.kill()
    if process.returncode:
        code = process.returncode
        unnamed = f"signal {-code}" if code < 0 else f"exit code {code}"
        cause = next((each.name for each in Signals if each == -code), unnamed)
        message = output.decode(errors="replace")
        raise ModelError(message or f"The process that validated the model ended with {cause}.")


def _main() -> None:
    try:
        warm_up(SpotterModel(sys.stdin.buffer.read()))
    except ModelError as error:
        sys.stdout.write(str(error))
        sys.exit(1)


if __name__ == "__main__":
    _main()
