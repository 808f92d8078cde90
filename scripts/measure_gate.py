"""Measure what the gate in front of the model costs in recall, and how much inference it saves.

    python scripts/measure_gate.py CORPUS [--model FILE] [--every N]

CORPUS is the folder that `earmark-train prepare` writes. Words of the validation speakers are spoken every
7 to 15 s, at -50 dBFS, in a room with noise. Prints a table: recall without and with the gate, and the share
of the steps that are run.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import numpy as np
from earmark_audio.energy_gate import GateSettings
from earmark_spotter import AudioFormat, Encoding, SpotterModel, StreamState, resolve_settings
from earmark_training.data.corpus import SAMPLE_RATE_HZ, Corpus
from earmark_training.data.rooms import reverberate
from earmark_training.evaluation import streams
from earmark_training.evaluation.conditions import Scene
from earmark_training.evaluation.intervals import wilson_interval
from earmark_training.evaluation.streams import SyntheticStream, make_streams, match_detections

_PAUSE_S = (6.0, 14.0)
_LEVEL_DBFS = -50.0


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--every", type=int, default=1, help="use every Nth word only")
    options = parser.parse_args()
    corpus, model = Corpus(options.corpus), SpotterModel.load(options.model)
    streams._PAUSE_S = _PAUSE_S
    clips = corpus.select("clip", "validation")[:: options.every]
    keywords = model.metadata.keyword_names
    print("| condition | words | recall, no gate | recall, gate | only without | steps run |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, room, noise, snr_db in (
        ("room, steady noise at 20 dB", True, "steady", 20),
        ("room, steady noise at 10 dB", True, "steady", 10),
        ("no room, steady noise at 20 dB", False, "steady", 20),
        ("room, recorded noise at 20 dB", True, "recorded", 20),
        ("room, silence", True, "none", 0),
    ):
        rng, scene = np.random.default_rng(7), Scene(corpus)
        counts = np.zeros(4, int)  # words, detected without and with the gate, detected only without it
        run = total = 0
        for stream in make_streams(corpus, clips, snr_db=None, seed=7, equal_levels=True):
            samples = _changed(scene, rng, stream, room=room, noise=noise, snr_db=snr_db)
            without, _, steps = _spotted(model, samples, gated=False)
            gated, steps_run, _ = _spotted(model, samples, gated=True)
            found = [
                {(w.text, w.start) for _, w, _ in match_detections([stream], [d], keywords).matches}
                for d in (without, gated)
            ]
            words = sum(word.text in keywords for word in stream.words)
            counts += (words, len(found[0]), len(found[1]), len(found[0] - found[1]))
            run, total = run + steps_run, total + steps
        shares = []
        for detected in counts[1:3]:
            low, high = wilson_interval(int(detected), int(counts[0]))
            shares.append(f"{detected / counts[0]:.1%} ({low:.1%} to {high:.1%})")
        print(
            f"| {name} | {counts[0]} | {shares[0]} | {shares[1]} | {counts[3]} | {run / total:.0%} |",
            flush=True,
        )


def _changed(
    scene: Scene, rng: np.random.Generator, stream: SyntheticStream, *, room: bool, noise: str, snr_db: float
) -> np.ndarray:
    powers = [float(np.square(stream.samples[w.start : w.end]).mean()) for w in stream.words]
    samples, power = stream.samples, float(np.median(powers))
    if room:
        samples = reverberate(samples, scene.room(rng))
    if noise == "steady":
        spectrum = np.fft.rfft(rng.standard_normal(len(samples)))
        spectrum[1:] *= np.arange(1, len(spectrum)) ** -0.6
        sound = np.fft.irfft(spectrum, len(samples))
        sound /= np.sqrt(np.square(sound).mean())
    elif noise == "recorded":
        sound = scene.noise(rng, len(samples))
    else:
        sound = np.zeros(len(samples))
    mixed = samples + sound * np.sqrt(power / 10 ** (snr_db / 10))
    gain = 10 ** (_LEVEL_DBFS / 20) / np.sqrt(power)
    return (np.clip(np.rint(mixed * gain * 32768), -32768, 32767) / 32768).astype(np.float32)


def _spotted(model: SpotterModel, samples: np.ndarray, *, gated: bool) -> tuple[list, int, int]:
    """Return the detections, the steps that were run, and all steps."""
    if gated and model.metadata.gate is None:
        model.metadata = dataclasses.replace(model.metadata, gate=GateSettings())
    audio_format = AudioFormat(Encoding.FLOAT32, SAMPLE_RATE_HZ)
    state = StreamState(model, audio_format, resolve_settings(model.metadata), gated=gated)
    state.push_samples(samples)
    state.finish()
    detections, run, total = [], 0, state.ready_steps
    model_state = model.initial_states(1)
    while not state.finished:
        if steps := state.steps_to_run(25):
            if state.starts_from_initial_state:
                model_state = model.initial_states(1)
            scores, model_state = model.step(state.consume(steps)[np.newaxis], model_state)
            detections += state.apply(scores[0])
            run += steps
        else:
            detections += state.skip(state.quiet_steps)
    return detections, run, total


if __name__ == "__main__":
    main()
