"""Measure what a model's inference costs, without a server.

    python -m benchmarks.inference [MODEL ...] [--batches 1,4,16,64] [--audio-ms 100] [--rounds 40]

Runs each model (default: the bundled model) on demo speech for batches of streams, on one thread. Each
inference has as many whole steps as --audio-ms needs. Prints CPU milliseconds per second of audio, the
median of the rounds. The models and batches alternate, so that a busy machine affects all of them equally.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile
from earmark_spotter import ModelError, SpotterModel

from benchmarks.loadgen.arguments import DEMO_RECORDING, count, counts

if TYPE_CHECKING:
    from collections.abc import Sequence

_WARM_UP_ROUNDS = 5


def main() -> int:
    args = _arguments()
    try:
        models = [SpotterModel.load(path) for path in args.models or [None]]
    except ModelError as error:
        print(f"benchmarks.inference: {error}", file=sys.stderr)
        return 1
    costs = network_ms(models, args.batches, args.audio_ms, args.rounds)
    batches = " | ".join(f"{b} streams" if b > 1 else "1 stream" for b in args.batches)
    print(f"| model | audio per inference | {batches} |")
    print(f"|---|---:|{'---:|' * len(args.batches)}")
    for m, model in enumerate(models):
        metadata = model.metadata
        audio_ms = _steps(model, args.audio_ms) * metadata.step_ms
        cells = (f"{costs[m, b]:.2f}" for b in args.batches)
        print(f"| {metadata.name} {metadata.version} | {audio_ms:.0f} ms | {' | '.join(cells)} |")
    return 0


def network_ms(
    models: Sequence[SpotterModel], batches: Sequence[int], audio_ms: float, rounds: int
) -> dict[tuple[int, int], float]:
    """Return the CPU ms per second of audio of each first network, by model index and batch size."""
    # All dictionaries have the keys (model index, batch size).
    costs: dict[tuple[int, int], list[float]] = {(m, b): [] for m in range(len(models)) for b in batches}
    inputs = {(m, b): _audio(models[m], b, audio_ms) for m, b in costs}
    states = {(m, b): models[m].initial_states(b) for m, b in costs}
    for round_number in range(_WARM_UP_ROUNDS + rounds):
        for (m, b), costs_ms in costs.items():
            begin_s = time.process_time()
            _, states[m, b] = models[m].step(inputs[m, b], states[m, b])
            if round_number >= _WARM_UP_ROUNDS:
                audio_s = inputs[m, b].size / models[m].metadata.sample_rate_hz
                costs_ms.append(1000 * (time.process_time() - begin_s) / audio_s)
    return {key: statistics.median(costs_ms) for key, costs_ms in costs.items()}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.inference",
        description="Measure what a model's inference costs, without a server.",
    )
    parser.add_argument(
        "models", nargs="*", type=Path, metavar="MODEL", help="model files (default: the bundled model)"
    )
    parser.add_argument(
        "--batches",
        type=counts,
        default=[1, 4, 16, 64],
        metavar="A,B,..",
        help="numbers of streams per batch (default: 1,4,16,64)",
    )
    parser.add_argument(
        "--audio-ms", type=float, default=100, metavar="N", help="audio per inference, in ms (default: 100)"
    )
    parser.add_argument(
        "--rounds",
        type=count,
        default=40,
        metavar="N",
        help="inferences per model and batch size (default: 40)",
    )
    return parser.parse_args()


def _steps(model: SpotterModel, audio_ms: float) -> int:
    return math.ceil(audio_ms / model.metadata.step_ms)


def _audio(
    model: SpotterModel, batch: int, audio_ms: float
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Return the audio of one inference, [batch, samples]: a different part of the demo for every stream."""
    sample_count = _steps(model, audio_ms) * model.metadata.step_samples
    speech, _ = soundfile.read(DEMO_RECORDING, dtype="float32")
    starts = np.linspace(0, len(speech) - sample_count, batch).astype(int)
    return np.stack([speech[start : start + sample_count] for start in starts])


if __name__ == "__main__":
    raise SystemExit(main())
