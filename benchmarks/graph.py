"""What a model's graph costs, without a server around it.

    python -m benchmarks.graph [MODEL ...] [--batches 1,4,16,64] [--audio-ms 100] [--rounds 40]

Runs each model (without one: the model that comes with Earmark) on demo speech for batches of streams, on one
thread, with as few whole steps a call as last --audio-ms. Prints CPU
milliseconds per second of audio, the median of the rounds; models and batches take turns, so that a busy
machine wrongs all alike.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from pathlib import Path

import earmark_cli
import numpy as np
import soundfile
from earmark_spotter import ModelError, SpotterModel

DEMO_RECORDING = Path(earmark_cli.__file__).parent / "samples" / "demo.flac"
_WARM_UP_ROUNDS = 5


def main() -> int:
    args = _arguments()
    try:
        models = [SpotterModel.load(path) for path in args.models or [None]]
    except ModelError as error:
        print(f"benchmarks.graph: {error}", file=sys.stderr)
        return 1
    costs: dict[tuple[int, int], list[float]] = {(m, b): [] for m in range(len(models)) for b in args.batches}
    inputs = {(m, b): _audio(models[m], b, args.audio_ms) for m, b in costs}
    states = {(m, b): models[m].initial_states(b) for m, b in costs}
    for turn in range(_WARM_UP_ROUNDS + args.rounds):
        for (m, b), taken in costs.items():
            started = time.process_time()
            _, states[m, b] = models[m].step(inputs[m, b], states[m, b])
            if turn >= _WARM_UP_ROUNDS:
                seconds = inputs[m, b].size / models[m].metadata.sample_rate_hz
                taken.append(1000 * (time.process_time() - started) / seconds)
    print(f"| model | a call | {' | '.join(f'{b} streams' if b > 1 else '1 stream' for b in args.batches)} |")
    print(f"|---|---:|{'---:|' * len(args.batches)}")
    for m, model in enumerate(models):
        meta = model.metadata
        call_ms = 1000 * inputs[m, args.batches[0]].shape[1] / meta.sample_rate_hz
        cells = (f"{statistics.median(costs[m, b]):.2f}" for b in args.batches)
        print(f"| {meta.name} {meta.version} | {call_ms:.0f} ms | {' | '.join(cells)} |")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.graph", description=__doc__.split("\n", 1)[0])
    parser.add_argument("models", nargs="*", type=Path, metavar="MODEL", help="model files")
    parser.add_argument(
        "--batches", type=_numbers, default=(1, 4, 16, 64), metavar="A,B,..", help="streams at once"
    )
    parser.add_argument("--audio-ms", type=float, default=100, metavar="N", help="audio in a call")
    parser.add_argument("--rounds", type=int, default=40, metavar="N", help="calls of each model and batch")
    return parser.parse_args()


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))


def _audio(
    model: SpotterModel, batch: int, audio_ms: float
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Return a call's audio, [batch, samples]: a piece of the demo from another place for every stream."""
    meta = model.metadata
    count = math.ceil(audio_ms / meta.step_ms) * meta.step_samples
    speech, _ = soundfile.read(DEMO_RECORDING, dtype="float32")
    starts = np.linspace(0, len(speech) - count, batch).astype(int)
    return np.stack([speech[s : s + count] for s in starts])


if __name__ == "__main__":
    raise SystemExit(main())
