"""Measure what each stage of a model costs in speech without pauses, in each condition, without a server.

    python -m benchmarks.stages [MODEL ...] --speech DIR --corpus DIR [--minutes 30] [--batch 16]

The models (default: the bundled model) run on one thread. The first network costs the same whatever is
said: it is measured once, as by benchmarks.inference, in batches of streams and calls of 200 ms. The verifier
runs on all that is proposed in the same read speech, in each condition. --speech is in the layout of
LibriSpeech; --corpus is a prepared corpus, whose validation noises, music and talkers make the conditions.
Prints one Markdown row per condition and model:

| column | meaning |
|---|---|
| first network | CPU ms per second of audio |
| looks per hour | of the verifier: keywords of peaks that the first network proposes |
| encoder runs per hour | of the speech encoder |
| verifier | CPU ms per second of audio, all runs of its graphs and of the encoder |
| together | first network and verifier, CPU ms per second of audio |
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from earmark_spotter import ModelError, SpotterModel, final_scores
from earmark_spotter.speech_encoder import bundled_speech_encoder
from earmark_training.data.corpus import SAMPLE_RATE_HZ, Corpus, find_speech, read_audio
from earmark_training.evaluation.conditions import CONDITIONS, Scene

from benchmarks.inference import network_ms
from benchmarks.loadgen.arguments import count

if TYPE_CHECKING:
    from numpy.typing import NDArray

MEASURED = ("clean", "noise, 10 dB", "babble, 10 dB", "room", "television")
_SEED = 41
_CALL_S, _ROUNDS = 0.2, 200


class _Timed:
    """A function that counts its calls and the CPU time that they take."""

    def __init__(self, function: Any) -> None:
        self._function = function
        self.reset()

    def reset(self) -> None:
        self.calls, self.cpu_s = 0, 0.0

    def __call__(self, *args: Any) -> Any:
        begin_s = time.thread_time()
        result = self._function(*args)
        self.cpu_s += time.thread_time() - begin_s
        self.calls += 1
        return result


def main() -> int:
    args = _arguments()
    try:
        models = [SpotterModel.load(path) for path in args.models or [None]]
    except ModelError as error:
        print(f"benchmarks.stages: {error}", file=sys.stderr)
        return 1
    scene = Scene(Corpus(args.corpus))
    speech = _speech(args.speech, 60 * args.minutes)
    encoder: Any = bundled_speech_encoder(1)  # as a model does, whose graphs have one thread
    encoder.features = encoded = _Timed(encoder.features)
    looks = [_Timed(model.verifier and model.verifier.final_scores) for model in models]
    for model, timed in zip(models, looks, strict=True):
        if model.verifier is not None:
            cast("Any", model.verifier).final_scores = timed
    network = network_ms(models, [args.batch], 1000 * _CALL_S, _ROUNDS)
    print(
        "| condition | model | first network | looks per hour | encoder runs per hour | verifier | together |"
    )
    print("|---|---|---:|---:|---:|---:|---:|")
    for condition in (c for c in CONDITIONS if c.name in MEASURED):
        rng = np.random.default_rng(_SEED)
        changed = [condition.change(scene, rng, s, float(np.square(s).mean())) for s in speech]
        seconds = sum(map(len, changed)) / SAMPLE_RATE_HZ
        for m, (model, timed) in enumerate(zip(models, looks, strict=True)):
            timed.reset()
            encoded.reset()
            for samples in changed:
                final_scores(model, samples)
            first_ms, verifier_ms = network[m, args.batch], 1000 * timed.cpu_s / seconds
            per_hour = f"{3600 * timed.calls / seconds:.0f} | {3600 * encoded.calls / seconds:.0f}"
            cells = f"{first_ms:.2f} | {per_hour} | {verifier_ms:.2f} | {first_ms + verifier_ms:.2f}"
            name = f"{model.metadata.name} {model.metadata.version}"
            print(f"| {condition.name} | {name} | {cells} |", flush=True)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "models", nargs="*", type=Path, metavar="MODEL", help="model files (default: the bundled model)"
    )
    parser.add_argument("--speech", type=Path, required=True, help="read speech in the layout of LibriSpeech")
    parser.add_argument("--corpus", type=Path, required=True, help="a prepared corpus, for the conditions")
    parser.add_argument(
        "--minutes", type=count, default=30, metavar="N", help="speech in each condition (default: 30)"
    )
    parser.add_argument(
        "--batch", type=count, default=16, metavar="N", help="streams per call of the network (default: 16)"
    )
    return parser.parse_args()


def _speech(folder: Path, seconds: float) -> list[NDArray[np.float32]]:
    """Return utterances of different readers, about `seconds` long together."""
    files = list(find_speech(folder))
    np.random.default_rng(_SEED).shuffle(files)
    found: list[NDArray[np.float32]] = []
    length = 0
    for file in files:
        if length >= seconds * SAMPLE_RATE_HZ:
            break
        found.append(read_audio(file.path))
        length += len(found[-1])
    return found


if __name__ == "__main__":
    raise SystemExit(main())
