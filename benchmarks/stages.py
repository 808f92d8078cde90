"""Measure what each stage of a model costs in speech without pauses, in each condition, without a server.

    python -m benchmarks.stages [MODEL ...] --speech DIR --corpus DIR [--minutes 30] [--batch 16]

Models (default: the bundled model) take turns on the same read speech in each condition, on one thread. The
first network runs in batches of streams, in calls of 200 ms; the verifier runs on all that is proposed.
--speech is read speech in the layout of LibriSpeech; --corpus is a prepared corpus, whose validation noises,
music and talkers make the conditions. Prints one Markdown row per condition and model:

| column | meaning |
|---|---|
| first network | CPU ms per second of audio, median of the calls |
| looks per hour | of the verifier: keywords of peaks that the first network proposes |
| encoder runs per hour | of the speech encoder |
| verifier | CPU ms per second of audio, all runs of its graphs and of the encoder |
| together | first network and verifier, CPU ms per second of audio |
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from earmark_spotter import ModelError, SpotterModel, final_scores
from earmark_spotter.speech_encoder import bundled_speech_encoder
from earmark_training.data.corpus import SAMPLE_RATE_HZ, Corpus, find_speech, read_audio
from earmark_training.evaluation.conditions import CONDITIONS, Scene

from benchmarks.loadgen.arguments import count

if TYPE_CHECKING:
    from numpy.typing import NDArray

MEASURED = ("clean", "noise, 10 dB", "babble, 10 dB", "room", "television")
_SEED = 41
_CALL_S = 0.2
_WARM_UP_CALLS = 5


class _Timed:
    """A function that counts its calls and the CPU time that they take."""

    def __init__(self, function: Any) -> None:
        self._function = function
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
    print(
        "| condition | model | first network | looks per hour | encoder runs per hour | verifier | together |"
    )
    print("|---|---|---:|---:|---:|---:|---:|")
    for condition in (c for c in CONDITIONS if c.name in MEASURED):
        rng = np.random.default_rng(_SEED)
        changed = [condition.change(scene, rng, s, float(np.square(s).mean())) for s in speech]
        seconds = sum(map(len, changed)) / SAMPLE_RATE_HZ
        network = _network_ms(models, np.concatenate(changed), args.batch)
        for model, network_ms in zip(models, network, strict=True):
            verifier: Any = model.verifier
            peaks, encoded = _Timed(None), _Timed(type(encoder).features.__get__(encoder))
            encoder.features = encoded
            if verifier is not None:
                peaks = _Timed(type(verifier).final_score.__get__(verifier))
                verifier.final_score = peaks
            for samples in changed:
                final_scores(model, samples)
            verifier_ms = 1000 * peaks.cpu_s / seconds
            per_hour = f"{3600 * peaks.calls / seconds:.0f} | {3600 * encoded.calls / seconds:.0f}"
            cells = f"{network_ms:.2f} | {per_hour} | {verifier_ms:.2f} | {network_ms + verifier_ms:.2f}"
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


def _network_ms(models: list[SpotterModel], audio: NDArray[np.float32], batch: int) -> list[float]:
    """Return each first network's CPU time, in ms per second of audio, in calls that alternate."""
    costs: list[list[float]] = [[] for _ in models]
    states = [model.initial_states(batch) for model in models]
    streams = audio[: len(audio) // batch * batch].reshape(batch, -1)
    begin = 0
    while True:
        for i, model in enumerate(models):
            step = model.metadata.step_samples
            samples = int(_CALL_S * SAMPLE_RATE_HZ) // step * step
            pcm = streams[:, begin : begin + samples]
            if pcm.shape[1] < samples:
                return [statistics.median(each[_WARM_UP_CALLS:]) for each in costs]
            begin_s = time.process_time()
            _, states[i] = model.step(pcm, states[i])
            costs[i].append(1000 * (time.process_time() - begin_s) / (pcm.size / SAMPLE_RATE_HZ))
        begin += int(_CALL_S * SAMPLE_RATE_HZ)


if __name__ == "__main__":
    raise SystemExit(main())
