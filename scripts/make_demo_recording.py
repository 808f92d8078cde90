#!/usr/bin/env python3
"""Make the bundled demo recording and its known words with free speech synthesizers.

Needs this project with the extra `train`, and these packages:

    apt-get install espeak-ng festival festvox-kallpc16k festvox-us-slt-hts flite sox
    scripts/make_demo_recording.py              writes client/earmark_cli/samples/demo.{flac,json}
    scripts/make_demo_recording.py --pool DIR   writes DIR/<voice>/<word>.wav for every voice and keyword

Each line of SCRIPT is spoken by one voice. The script trims the silence around it, normalizes its loudness,
places it on the time line, and adds pink noise from sox at an SNR of 20 dB. The same versions of the
packages (Debian 12) yield the same samples.

The recording is a demonstration, not a measurement: SCRIPT contains voices and words from the pool that the
bundled model detects with a margin. (The model was trained on human speech, and does not detect every word
of every synthesizer.)

The voices are those of Flite and Festival (Carnegie Mellon University, University of Edinburgh; a free
licence similar to the MIT licence; the `kal` voices concatenate recorded speech of one speaker under the
same licence) and of eSpeak NG (GPL-3, which does not cover its output). This project's own contribution is
in the public domain (CC0-1.0).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile
from earmark_training.data.vocabulary import DEFAULT_KEYWORDS
from earmark_training.keyword.synthesis import espeak_voice, festival_voice, flite_voice, synthesize

if TYPE_CHECKING:
    from collections.abc import Sequence

RATE_HZ = 16_000
SNR_DB = 20.0
SPEECH_RMS = 0.03
LEAD_S, GAP_S = 1.0, 0.7
SAMPLES = Path(__file__).resolve().parents[1] / "client" / "earmark_cli" / "samples"

VOICES = {
    **{f"flite-{name}": flite_voice(name) for name in ("slt", "rms", "awb", "kal16")},
    **{f"flite-{name}-slow": flite_voice(name, 1.3) for name in ("slt", "rms", "awb")},
    "festival-kal": festival_voice("kal_diphone"),
    "festival-slt": festival_voice("cmu_us_slt_arctic_hts"),
    "espeak-us": espeak_voice("en-us", 140),
    "espeak-us-f2": espeak_voice("en-us+f2", 140),
    "espeak-us-m3": espeak_voice("en-us+m3", 140),
    "espeak-us-max": espeak_voice("en-us+max", 140),
    "espeak-gb": espeak_voice("en-gb", 140),
    "espeak-gb-linda": espeak_voice("en-gb+linda", 140),
    "espeak-scotland": espeak_voice("en-gb-scotland", 140),
}


@dataclass(frozen=True)
class Line:
    """A text and the voice that speaks it. A text that is not a keyword must not be detected."""

    voice: str
    text: str

    @property
    def keyword(self) -> str | None:
        """The text, if it is a keyword."""
        return self.text if self.text in DEFAULT_KEYWORDS else None


SCRIPT = [
    Line("flite-rms", "no"),
    Line("festival-slt", "yes"),
    Line("festival-kal", "The train was late again this morning."),
    Line("flite-awb", "stop"),
    Line("flite-kal16", "go"),
    Line("espeak-gb", "left"),
    Line("festival-slt", "right"),
    Line("flite-rms", "Marvin bought a happy little dog."),
    Line("festival-kal", "backward"),
    Line("flite-kal16", "forward"),
    Line("flite-slt", "one"),
    Line("festival-kal", "two"),
    Line("flite-slt", "My house has a green door."),
    Line("flite-awb", "four"),
    Line("festival-slt", "five"),
    Line("flite-slt-slow", "zero"),
]


def say(lines: Sequence[Line], folder: Path) -> list[np.ndarray]:
    """Synthesize lines; return float32 [n] at RATE_HZ for each, without silence around it, at SPEECH_RMS."""
    words, resampled = [], folder / "resampled.wav"
    for raw in synthesize([(VOICES[line.voice], line.text) for line in lines], folder / "raw"):
        subprocess.run(
            ["sox", "-R", raw, "-r", str(RATE_HZ), "-c", "1", "-b", "16", resampled, "gain", "-h"], check=True
        )
        samples, _ = soundfile.read(resampled, dtype="float32")
        first, last = speech_range(samples)
        word = samples[first:last]
        words.append(word * (SPEECH_RMS / np.sqrt(np.mean(word**2))))
    return words


def speech_range(samples: np.ndarray) -> tuple[int, int]:
    """Return the sample range of the speech in a clean recording: all within 35 dB of the loudest 10 ms."""
    hop = RATE_HZ // 100
    frames = samples[: len(samples) // hop * hop].reshape(-1, hop)
    energy = np.mean(frames**2, axis=1)
    loud = np.flatnonzero(energy > energy.max() * 10**-3.5)
    return int(loud[0]) * hop, (int(loud[-1]) + 1) * hop


def noise(count: int, folder: Path) -> np.ndarray:
    """Return pink noise from sox, float32 [count], SNR_DB below SPEECH_RMS."""
    path = folder / "noise.wav"
    # -R seeds the noise generator with a constant.
    command = ["sox", "-R", "-r", str(RATE_HZ), "-c", "1", "-n", "-b", "16", str(path)]
    subprocess.run([*command, "synth", f"{count}s", "pinknoise", "gain", "-n", "-3"], check=True)
    samples, _ = soundfile.read(path, dtype="float32")
    return samples[:count] * (SPEECH_RMS * 10 ** (-SNR_DB / 20) / np.sqrt(np.mean(samples**2)))


def make_recording(folder: Path) -> None:
    """Write demo.flac and demo.json."""
    at = round(LEAD_S * RATE_HZ)
    placed: list[tuple[int, Line, np.ndarray]] = []
    for line, samples in zip(SCRIPT, say(SCRIPT, folder), strict=True):
        placed.append((at, line, samples))
        at += len(samples) + round(GAP_S * RATE_HZ)
    mixed = noise(at + round((LEAD_S - GAP_S) * RATE_HZ), folder)
    words = []
    for start, line, samples in placed:
        mixed[start : start + len(samples)] += samples
        words.append(
            {
                "start_s": round(start / RATE_HZ, 3),
                "end_s": round((start + len(samples)) / RATE_HZ, 3),
                "text": line.text,
                "keyword": line.keyword,
                "voice": line.voice,
            }
        )
    SAMPLES.mkdir(exist_ok=True)
    soundfile.write(SAMPLES / "demo.flac", mixed, RATE_HZ, subtype="PCM_16", compression_level=1.0)
    document = {
        "recording": "demo.flac",
        "duration_s": len(mixed) / RATE_HZ,
        "made_by": "scripts/make_demo_recording.py: speech synthesizers from Debian, pink noise from sox, "
        f"{SNR_DB:g} dB below the speech",
        "chosen": "voices and words that the bundled model recognises: a demonstration, no measurement",
        "license": "CC0-1.0 for what the project adds; the voices' licences leave their output free",
        "credit": "Flite and Festival (Carnegie Mellon University, University of Edinburgh), eSpeak NG",
        "said": words,
    }
    (SAMPLES / "demo.json").write_text(json.dumps(document, indent=2) + "\n")


def make_pool(pool: Path, folder: Path) -> None:
    """Write all keywords, spoken by all voices, from which SCRIPT is chosen."""
    lines = [Line(voice, word) for voice in VOICES for word in DEFAULT_KEYWORDS]
    for line, samples in zip(lines, say(lines, folder), strict=True):
        (pool / line.voice).mkdir(parents=True, exist_ok=True)
        soundfile.write(pool / line.voice / f"{line.text}.wav", samples, RATE_HZ)


def main() -> int:
    """Run the script."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--pool", type=Path, help="write all keywords, spoken by all voices, to this folder instead"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        if args.pool:
            make_pool(args.pool, Path(temporary))
        else:
            make_recording(Path(temporary))
    return 0


if __name__ == "__main__":
    sys.exit(main())
