"""A new model is tried in a process of its own: one that crashes the runtime, or hangs, harms nobody else."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from signal import Signals

import numpy as np
from earmark_spotter import ModelError, SpotterModel

_TRIAL_S = 60
"""A model that takes longer to load, and to run for a moment, hangs."""


def warm_up(model: SpotterModel) -> None:
    """Run a model once or twice: the first run with a new shape is slow, and nobody should wait for it."""
    for batch, steps in ((1, 5), (1, 50), (8, 5)):
        pcm = np.zeros((batch, steps * model.metadata.step_samples), np.float32)
        model.step(pcm, model.initial_states(batch))


async def try_model(content: bytes) -> None:
    """Load a model in a process of its own; ModelError if that does not go well."""
    # Not by asyncio: uvloop forks, which gRPC does not bear; this does not, and takes no time.
    with subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-P", "-m", "earmark_server.inference.model_sandbox"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            said, _ = await asyncio.to_thread(process.communicate, content, _TRIAL_S)
        except subprocess.TimeoutExpired:
            raise ModelError(f"It was not loaded within {_TRIAL_S} s.") from None
        finally:
            process.kill()
    if process.returncode:
        code = process.returncode
        how = Signals(-code).name if code < 0 else f"exit code {code}"
        raise ModelError(said.decode(errors="replace") or f"The process that was to try it ended with {how}.")


def _main() -> None:
    try:
        warm_up(SpotterModel(sys.stdin.buffer.read()))
    except ModelError as error:
        sys.stdout.write(str(error))
        sys.exit(1)


if __name__ == "__main__":
    _main()
