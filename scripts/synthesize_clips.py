#!/usr/bin/env python
"""Synthesize clips of words with Kokoro-82M: synthesize_clips.py KOKORO_DIR OUT WORD[:COUNT]...

KOKORO_DIR contains kokoro-v1.0.int8.onnx and voices-v1.0.bin. The clips are written to OUT in the layout of
Speech Commands, one second each at 16 kHz: `<word>/<voice>_nohash_<n>.wav`. Those of every ninth voice are
added to `validation_list.txt`. The first clips of a word have one voice each, most later ones blend two.
OUT can be the folder of the real clips; existing files are kept. The script requires `kokoro-onnx`, which is
not a dependency of the project.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import soundfile
import soxr
from kokoro_onnx import Kokoro

RATE = 16_000
_TEXTS = ("{}.", "{}!", "{}", "{}?")
_SPEED = (0.75, 1.35)
_VALIDATION_EVERY = 9


def synthesize(
    kokoro: Kokoro, rng: np.random.Generator, word: str, voice: str, other: str | None
) -> np.ndarray:
    """Return a second of the word [16000], read by one voice or by a blend of two."""
    style = kokoro.get_voice_style(voice)
    if other is not None:
        share = np.float32(rng.uniform(0.3, 0.7))
        style = style * share + kokoro.get_voice_style(other) * (1 - share)
    text = str(rng.choice(_TEXTS)).format(word.capitalize())
    language = "en-gb" if voice.startswith("b") else "en-us"
    samples, rate = kokoro.create(text, voice=style, speed=float(rng.uniform(*_SPEED)), lang=language)
    samples = soxr.resample(samples.astype(np.float32), rate, RATE)[:RATE]
    samples *= np.float32(10 ** (rng.uniform(-20, -1) / 20) / (np.abs(samples).max() + 1e-9))
    clip = np.zeros(RATE, np.float32)
    start = int(rng.integers(RATE - len(samples) + 1))
    clip[start : start + len(samples)] = samples
    return clip


def main() -> None:
    """Synthesize the words in turn, the next voice of each."""
    folder, out = Path(sys.argv[1]), Path(sys.argv[2])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        str(folder / "kokoro-v1.0.int8.onnx"), options, providers=["CPUExecutionProvider"]
    )
    kokoro = Kokoro.from_session(session, str(folder / "voices-v1.0.bin"))
    voices = sorted(kokoro.get_voices())
    held_out = voices[::_VALIDATION_EVERY]
    training = [v for v in voices if v not in held_out]
    counts = {w: int(n or 54) for w, _, n in (a.partition(":") for a in sys.argv[3:])}
    listed = out / "validation_list.txt"
    for number in range(max(counts.values())):
        for word in (w for w, n in counts.items() if number < n):
            seed = int(hashlib.sha1(f"{word} {number}".encode()).hexdigest()[:8], 16)
            rng = np.random.default_rng(seed)
            # The voices in an order of the word's own, so that few clips of it have many of them.
            own = np.random.default_rng(
                seed=int(hashlib.sha1(word.encode()).hexdigest()[:8], 16)
            ).permutation(voices)
            voice, other = str(own[number % len(voices)]), None
            if voice in training and number >= len(voices) and rng.random() < 0.7:
                other = str(rng.choice([v for v in training if v != voice]))
            name = f"kokoro-{voice}" + (f"-{other}" if other else "")
            path = out / word / f"{name}_nohash_{number}.wav"
            if path.is_file():
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            clip = synthesize(kokoro, rng, word, voice, other)
            soundfile.write(path, clip, RATE)
            if voice in held_out:
                with listed.open("a") as file:
                    print(f"{word}/{path.name}", file=file)


if __name__ == "__main__":
    main()
