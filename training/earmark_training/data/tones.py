"""Synthetic signal tones: notes, chimes, keypads, beeps, alarms and ringing, float32 at 16 kHz."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from earmark_training.data.corpus import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Samples = NDArray[np.float32]
    Wave = NDArray[np.float64]

_KEYPAD_HZ = ((697, 770, 852, 941), (1209, 1336, 1477, 1633))
_GAP_S = (0.05, 2.0)


def signal_tones(rng: np.random.Generator, length: int, kind: str | None = None) -> Samples:
    """Return signals of one kind one after another, with gaps of 0.05 to 2 s; peak 1, [length].

    kind: of `SIGNALS`; None: one at random.
    """
    out = np.zeros(length)
    signal = SIGNALS[kind or list(SIGNALS)[rng.integers(len(SIGNALS))]]
    position = int(rng.uniform(0, _GAP_S[1]) * SAMPLE_RATE_HZ)
    while position < length:
        sound = signal(rng) * 10 ** (rng.uniform(-20, 0) / 20)
        sound = sound[: length - position]
        out[position : position + len(sound)] += sound
        position += len(sound) + int(rng.uniform(*_GAP_S) * SAMPLE_RATE_HZ)
    scaled: Samples = (out / (np.abs(out).max() + 1e-6)).astype(np.float32)
    return scaled


def _time(seconds: float) -> Wave:
    return np.arange(int(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ


def _faded(sound: Wave, seconds: float) -> Wave:
    """Fade in and out, so that a note neither begins nor ends with a click."""
    ramp = np.minimum(np.arange(len(sound)), np.arange(len(sound))[::-1]) / (seconds * SAMPLE_RATE_HZ)
    return sound * np.minimum(1, ramp)


def _pitch(rng: np.random.Generator) -> float:
    return float(110 * 2 ** rng.uniform(0, 5))


def _note(rng: np.random.Generator) -> Wave:
    """Return a single sine, steady, swelling or dying away."""
    time = _time(rng.uniform(0.05, 1.2))
    decay = np.exp(-time * rng.choice((0, 0, rng.uniform(1, 20))))
    return _faded(np.sin(2 * np.pi * _pitch(rng) * time) * decay, 10 ** rng.uniform(-3, -1))


def _chime(rng: np.random.Generator) -> Wave:
    """Return one to four struck notes whose partials are those of a bar, a bell or a string."""
    ratios = np.array(((1, 2.76, 5.4, 8.93), (1, 2.0, 2.4, 3.0), (1, 2, 3, 4))[rng.integers(3)])
    first, gap, count = _pitch(rng) * 2, rng.uniform(0.08, 0.5), int(rng.integers(1, 5))
    time = _time(rng.uniform(0.4, 2.0))
    out = np.zeros(int(gap * SAMPLE_RATE_HZ) * (count - 1) + len(time))
    for i in range(count):
        hz = first * 2 ** (rng.integers(-12, 13) / 12) * ratios
        hz = hz[hz < SAMPLE_RATE_HZ / 2.1]
        rates = rng.uniform(1, 8) * np.arange(1, len(hz) + 1)
        strike = sum(
            np.sin(2 * np.pi * f * time) * np.exp(-r * time) * rng.uniform(0.2, 1)
            for f, r in zip(hz, rates, strict=True)
        )
        start = i * int(gap * SAMPLE_RATE_HZ)
        out[start : start + len(time)] += strike
    return _faded(out, 0.003) / 2


def _keypad(rng: np.random.Generator) -> Wave:
    """Return one to eleven digits as a telephone dials them."""
    time, gap = _time(rng.uniform(0.05, 0.25)), np.zeros(int(rng.uniform(0.04, 0.3) * SAMPLE_RATE_HZ))
    parts = []
    for _ in range(rng.integers(1, 12)):
        low, high = (rng.choice(row) for row in _KEYPAD_HZ)
        digit = np.sin(2 * np.pi * low * time) + np.sin(2 * np.pi * high * time)
        parts += [_faded(digit / 2, 0.003), gap]
    return np.concatenate(parts)


def _beeps(rng: np.random.Generator) -> Wave:
    """Return equal beeps in a row, square or sine, as of an oven, a scanner, a lorry."""
    time, gap = _time(rng.uniform(0.04, 0.6)), np.zeros(int(rng.uniform(0.03, 0.6) * SAMPLE_RATE_HZ))
    wave = np.sin(2 * np.pi * _pitch(rng) * 2 * time)
    beep = _faded(np.tanh(wave * rng.choice((0.1, 1, 10))), 0.004)
    return np.concatenate([beep, gap] * int(rng.integers(1, 8)))


def _alarm(rng: np.random.Generator) -> Wave:
    """Return a siren: a pitch that sweeps, jumps or warbles."""
    time = _time(rng.uniform(0.8, 4.0))
    low = rng.uniform(300, 1500)
    turns = time * 10 ** rng.uniform(-0.5, 1.3)
    shape = (np.sin(2 * np.pi * turns), np.sign(np.sin(2 * np.pi * turns)), 2 * (turns % 1) - 1)[
        rng.integers(3)
    ]
    hz = low * 2 ** (rng.uniform(0.1, 0.8) * (1 + shape))
    wave = np.sin(2 * np.pi * np.cumsum(hz) / SAMPLE_RATE_HZ)
    return _faded(np.tanh(wave * rng.choice((0.1, 1, 10))), 0.01)


def _ring(rng: np.random.Generator) -> Wave:
    """Return a telephone's bell or ringing tone."""
    time = _time(rng.uniform(0.4, 2.0))
    hz = rng.uniform(350, 2500)
    pair = np.sin(2 * np.pi * hz * time) + np.sin(2 * np.pi * hz * rng.uniform(1.05, 1.3) * time)
    struck = 0.5 + 0.5 * np.sin(2 * np.pi * rng.uniform(10, 30) * time)
    return _faded(pair / 2 * (struck if rng.random() < 0.7 else 1), 0.01)


SIGNALS: dict[str, Callable[[np.random.Generator], Wave]] = {
    "single notes": _note,
    "chimes": _chime,
    "keypads": _keypad,
    "beeps": _beeps,
    "alarms": _alarm,
    "telephone bells": _ring,
}
