"""Synthetic sounds without speech (music, drums, clicks, noise), in which every detection is a false alarm.

They are seeded, float32 [n] at 16 kHz, at ordinary levels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from earmark_training.data.augment import add_at
from earmark_training.data.coloured_noise import coloured_noise
from earmark_training.data.corpus import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

SECONDS = 300
"""The length of each sound."""

_SCALE = (0, 2, 4, 5, 7, 9, 11)  # major, in semitones
_PEAK = 0.3


def non_speech_sounds(seed: int) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield each sound as (name, samples [SECONDS at 16 kHz])."""
    length = SECONDS * SAMPLE_RATE_HZ
    rng = np.random.default_rng(seed)
    yield "digital silence", np.zeros(length, np.float32)
    for name, slope in (("white noise", 0.0), ("pink noise", 1.0), ("brown noise", 2.0)):
        yield name, coloured_noise(rng, length, slope) * np.float32(0.1)
    yield "clicks", _clicks(rng, length)
    yield "chords", _notes(rng, length, duration_s=(0.8, 2.5), voices=4)
    yield "arpeggios", _notes(rng, length, duration_s=(0.1, 0.3), voices=1)
    yield "melody with vibrato", _notes(rng, length, duration_s=(0.3, 1.0), voices=1, vibrato=0.03)
    yield "drums", _drums(rng, length)


def _start_times(rng: np.random.Generator, length: int, gap_s: tuple[float, float]) -> Iterator[int]:
    """Yield start times in samples, at random distances in the given range."""
    position = int(rng.uniform(*gap_s) * SAMPLE_RATE_HZ)
    while position < length:
        yield position
        position += int(rng.uniform(*gap_s) * SAMPLE_RATE_HZ)


def _add(to: NDArray[np.float32], sound: NDArray[np.float64], start: int) -> None:
    add_at(to, sound.astype(np.float32), start)


def _clicks(rng: np.random.Generator, length: int) -> NDArray[np.float32]:
    """Return bursts of 1 to 30 ms, like those of keys, switches and knocks."""
    out = np.zeros(length, np.float32)
    for start in _start_times(rng, length, (0.05, 1.0)):
        count = int(rng.uniform(0.001, 0.03) * SAMPLE_RATE_HZ)
        burst = rng.standard_normal(count) * np.exp(-np.arange(count) / (0.2 * count))
        ringing = np.sin(2 * np.pi * rng.uniform(200, 5000) * np.arange(count) / SAMPLE_RATE_HZ)
        _add(out, _PEAK * rng.uniform(0.1, 1) * burst * (ringing if rng.random() < 0.5 else 1), start)
    return np.clip(out, -1, 1)


def _notes(
    rng: np.random.Generator,
    length: int,
    *,
    duration_s: tuple[float, float],
    voices: int,
    vibrato: float = 0.0,
) -> NDArray[np.float32]:
    """Return notes of a scale with harmonics, plucked or sustained, up to `voices` at once."""
    out = np.zeros(length, np.float32)
    position = 0
    while position < length:
        count = int(rng.uniform(*duration_s) * SAMPLE_RATE_HZ)
        time = np.arange(count) / SAMPLE_RATE_HZ
        fade = np.minimum(1, np.minimum(time, time[::-1]) / 0.01)
        envelope = fade * (np.exp(-3 * time / time[-1]) if rng.random() < 0.5 else 1)
        for _ in range(rng.integers(1, voices + 1)):
            semitones = 12 * rng.integers(0, 4) + rng.choice(_SCALE)
            bend = vibrato / (2 * np.pi * 5.5) * np.sin(2 * np.pi * 5.5 * time)
            phase = 2 * np.pi * 110 * 2 ** (semitones / 12) * (time + bend)
            tone = sum(np.sin(h * phase) / h ** rng.uniform(0.7, 2) for h in range(1, 9))
            _add(out, _PEAK / voices * rng.uniform(0.3, 1) * envelope * tone, position)
        position += count
    return np.clip(out, -1, 1)


def _drums(rng: np.random.Generator, length: int) -> NDArray[np.float32]:
    """Return kick, snare and hi-hat at a tempo that changes every eight bars."""
    out = np.zeros(length, np.float32)
    time = np.arange(int(0.3 * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    position, step = 0, 0
    beat = 0
    while position < length:
        if step % 128 == 0:
            beat = int(rng.uniform(0.08, 0.16) * SAMPLE_RATE_HZ)
        if step % 8 == 0 or rng.random() < 0.08:
            kick = np.sin(2 * np.pi * (50 * time - 12 * np.exp(-30 * time))) * np.exp(-12 * time)
            _add(out, 2 * _PEAK * kick, position)
        if step % 8 == 4 or rng.random() < 0.05:
            body = rng.standard_normal(len(time)) + np.sin(2 * np.pi * 190 * time)
            _add(out, _PEAK * body * np.exp(-20 * time), position)
        if step % 2 == 0:
            hiss = np.diff(rng.standard_normal(len(time) + 1))
            _add(out, _PEAK * rng.uniform(0.1, 0.4) * hiss * np.exp(-60 * time), position)
        position += beat
        step += 1
    return np.clip(out, -1, 1)
