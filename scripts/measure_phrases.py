#!/usr/bin/env python
"""Measure how many keywords a model detects in phrases of two words.

    python scripts/measure_phrases.py VOICES [MODEL]

VOICES contains the two files of Kokoro-82M (training/KEYWORD.md). Fourteen of its English voices read each
phrase at once, and its two words alone, which are joined with pauses. The keyword is the word of the phrase
that MODEL, or the bundled model, knows. Prints a Markdown table: of the phrases, those in which the keyword
was detected.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import soundfile
from earmark_spotter import SpotterModel, final_scores
from earmark_training.data.corpus import SAMPLE_RATE_HZ
from earmark_training.evaluation.detections import detect
from earmark_training.keyword.kokoro import PAD_S, Kokoro, Line, default_cache
from earmark_training.keyword.pronunciation import pronounce

PHRASES = (
    "lights on", "lights off", "turn left", "turn right", "go forward", "please stop", "number five",
    "yes please", "stop now",
)  # fmt: skip
PAUSES_S = (0.05, 0.1, 0.2, 0.4)
SPEED = 0.9


def main() -> None:
    """Print the table."""
    kokoro = Kokoro(Path(sys.argv[1]), default_cache())
    model = SpotterModel.load(Path(sys.argv[2]) if len(sys.argv) > 2 else None)
    voices = [v for v in kokoro.voices if v[0] in "ab"][::2]

    def read(text: str) -> list[np.ndarray]:
        """Return a text in each voice, without the silence around it."""
        phonemes = " ".join("".join(word) for word in pronounce([text], "en")[0])
        files = kokoro.read([Line(phonemes, voice, speed=SPEED) for voice in voices], desc=text)
        pad = int(PAD_S * SAMPLE_RATE_HZ)
        return [soundfile.read(file, dtype="float32")[0][pad:-pad] for file in files]

    def detected(keyword: str, spoken: np.ndarray) -> bool:
        """Return whether the keyword is detected in a recording."""
        found = detect(model.metadata, final_scores(model, np.pad(spoken, SAMPLE_RATE_HZ)))
        return any(d.keyword == keyword for d in found)

    print("| phrase | at once | " + " | ".join(f"{p:g} s" for p in PAUSES_S) + " |")
    print("|---|" + "---:|" * (1 + len(PAUSES_S)))
    total = np.zeros(1 + len(PAUSES_S), int)
    for phrase in PHRASES:
        keyword = next(w for w in phrase.split() if w in model.metadata.keyword_names)
        first, second = (read(word) for word in phrase.split())
        ways = [read(phrase)]
        for pause_s in PAUSES_S:
            pause = np.zeros(int(pause_s * SAMPLE_RATE_HZ), np.float32)
            ways.append([np.concatenate((a, pause, b)) for a, b in zip(first, second, strict=True)])
        counts = np.array([sum(detected(keyword, one) for one in way) for way in ways])
        total += counts
        print(f"| {phrase} | " + " | ".join(map(str, counts)) + " |", flush=True)
    print(
        f"| all {len(PHRASES) * len(voices)} | "
        + " | ".join(f"{c / len(PHRASES) / len(voices):.0%}" for c in total)
        + " |"
    )


if __name__ == "__main__":
    main()
