"""A synthesizer for tests that cannot have the neural one: each phoneme is a glide of its own."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import numpy as np
import soundfile
from earmark_training.keyword.kokoro import padded

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from earmark_audio.progress import Progress
    from earmark_training.keyword.kokoro import Line

RATE = 24_000


def say_phonemes(phonemes: str, voice: str, speed: float = 1.0) -> np.ndarray:
    """Return phonemes as glides in a voice, float32 [n] at 24 kHz; spaces are pauses."""
    of_voice = np.random.default_rng(zlib.crc32(voice.encode()))
    pitch = of_voice.uniform(0.9, 1.1)
    pieces = []
    for symbol in phonemes:
        time = np.arange(int(0.12 / speed * RATE)) / RATE
        if not symbol.isalpha():
            pieces.append(np.zeros(len(time) // 3))
            continue
        low, high = np.random.default_rng(ord(symbol)).uniform(400, 3000, 2) * pitch
        glide = low * time + (high - low) / (2 * time[-1]) * time**2
        pieces.append(sum(np.sin(2 * np.pi * h * glide) / h for h in (1, 2)) * np.hanning(len(time)))
    return np.concatenate(pieces).astype(np.float32)


class TinyReader:
    """Reads lines into a folder; counts what it read."""

    voices = tuple(f"t{'fm'[i % 2]}_{i}" for i in range(12))

    def __init__(self, folder: Path) -> None:
        self._folder, self.lines = folder, 0

    def unknown_symbols(self, phonemes: str) -> list[str]:
        return sorted(set(phonemes) & set("0123456789"))

    def read(self, lines: Sequence[Line], *, progress: Progress, desc: str) -> list[Path]:
        paths = []
        for line in progress(lines, total=len(lines), desc=desc, unit="lines"):
            path = self._folder / f"{self.lines:05d}.flac"
            samples = say_phonemes(line.phonemes, line.voice + line.other, line.speed)
            soundfile.write(path, padded(samples, RATE), 16_000)
            self.lines += 1
            paths.append(path)
        return paths
