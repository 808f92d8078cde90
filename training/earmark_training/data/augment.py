"""Augmentation of waveforms: speed, rooms, telephones, clipping; and synthetic sounds without speech."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from earmark_training.data.corpus import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Samples = NDArray[np.float32]

_SPEED = (0.85, 1.18)
_ROOM, _TELEPHONE, _CLIPPING, _EQUALIZER = 0.4, 0.2, 0.1, 0.4


def vary_voice(rng: np.random.Generator, samples: Samples) -> tuple[Samples, float]:
    """Return the recording at a random speed, perhaps filtered, reverberated or clipped; and the speed."""
    speed = float(rng.uniform(*_SPEED))
    samples = change_speed(samples, speed)
    if rng.random() < _EQUALIZER:
        samples = _filter(samples, _tilt(rng, len(samples)))
    if rng.random() < _ROOM:
        samples = _filter(samples, _room(rng, len(samples)))
    if rng.random() < _CLIPPING:
        samples = np.clip(
            samples, *(np.abs(samples).max() * rng.uniform(0.2, 0.8) * np.array((-1, 1)))
        ).astype(np.float32)
    if rng.random() < _TELEPHONE:
        samples = _filter(samples, _telephone(rng, len(samples)))
        if rng.random() < 0.5:
            samples = _mu_law(samples)
    return np.clip(samples, -1, 1), speed


def equalize(rng: np.random.Generator, samples: Samples) -> Samples:
    """Return the samples through a microphone or loudspeaker of another tone, within 15 dB."""
    return _filter(samples, _tilt(rng, len(samples)))


def telephone(rng: np.random.Generator, samples: Samples) -> Samples:
    """Return the samples through a telephone, half the time with 8-bit mu-law."""
    samples = _filter(samples, _telephone(rng, len(samples)))
    return _mu_law(samples) if rng.random() < 0.5 else samples


def vary_noise(rng: np.random.Generator, samples: Samples) -> Samples:
    """Return recorded noise at 0.5 to 1.8 times its speed, filtered, and backwards half of the time."""
    samples = change_speed(samples, float(rng.uniform(0.5, 1.8)))[:: rng.choice((-1, 1))]
    return _filter(np.ascontiguousarray(samples), _tilt(rng, len(samples)))


def synthetic_sound(rng: np.random.Generator, length: int) -> Samples:
    """Return coloured noise of changing level, musical tones, clicks, or hum; peak 1, [length]."""
    kind = rng.integers(4)
    if kind == 0:
        samples = _coloured_noise(rng, length) * _changing_level(rng, length)
    elif kind == 1:
        samples = _music(rng, length)
    elif kind == 2:
        samples = _clicks(rng, length)
    else:
        samples = _hum(rng, length) + _coloured_noise(rng, length) * np.float32(rng.uniform(0, 0.3))
    scaled: Samples = samples / np.float32(np.abs(samples).max() + 1e-6)
    return scaled


def _coloured_noise(rng: np.random.Generator, length: int) -> Samples:
    """Return noise whose power falls by 0 to 6 dB per octave (white to brown), chosen at random; peak 1."""
    spectrum = np.fft.rfft(rng.standard_normal(length, np.float32))
    spectrum *= np.arange(1, len(spectrum) + 1, dtype=np.float32) ** (-rng.uniform(0, 2) / 2)
    noise = np.fft.irfft(spectrum, length).astype(np.float32)
    return noise / np.float32(np.abs(noise).max())


def add_at(to: NDArray[np.float32], piece: NDArray[np.float32], offset: int) -> None:
    """Add `piece` to `to` at `offset`, which may be negative; cut off the part that does not fit."""
    piece = piece[max(0, -offset) : max(0, len(to) - offset)]
    start = max(0, offset)
    to[start : start + len(piece)] += piece


def _changing_level(rng: np.random.Generator, length: int) -> Samples:
    """Return a gain over time that varies by up to 40 dB, in steps of 50 ms to 1 s."""
    count = int(length / SAMPLE_RATE_HZ / 10 ** rng.uniform(-1.3, 0)) + 2
    level_db = rng.uniform(-40, 0, count)
    return 10 ** (np.interp(np.linspace(0, count - 1, length), np.arange(count), level_db) / 20).astype(
        np.float32
    )


def _music(rng: np.random.Generator, length: int) -> Samples:
    """Return a sequence of chords of harmonic tones with vibrato."""
    out = np.zeros(length, np.float32)
    position = 0
    while position < length:
        count = min(length - position, int(rng.uniform(0.1, 1.5) * SAMPLE_RATE_HZ))
        time = np.arange(count, dtype=np.float32) / SAMPLE_RATE_HZ
        envelope = np.minimum(1, time / 0.02) * np.exp(-time * rng.uniform(0, 6))
        for _ in range(rng.integers(1, 4)):
            pitch = 440 * 2 ** (rng.integers(-30, 25) / 12)
            vibrato = rng.uniform(0, 0.02) * np.sin(2 * np.pi * rng.uniform(3, 8) * time)
            phase = 2 * np.pi * pitch * (time + vibrato / 10)
            for harmonic in range(1, int(min(12, 7_500 / pitch)) + 1):
                out[position : position + count] += (
                    envelope * np.sin(harmonic * phase) * harmonic ** -rng.uniform(0.5, 2)
                )
        position += count
    return out


def _clicks(rng: np.random.Generator, length: int) -> Samples:
    """Return short bursts of filtered noise, 0.5 to 10 per second."""
    out = np.zeros(length, np.float32)
    for start in rng.integers(0, length, int(length / SAMPLE_RATE_HZ * 10 ** rng.uniform(-0.3, 1))):
        count = min(length - start, int(10 ** rng.uniform(-3.3, -0.8) * SAMPLE_RATE_HZ) + 2)
        burst = rng.standard_normal(count) * np.exp(-5 * np.arange(count) / count)
        out[start : start + count] += (burst * 10 ** (rng.uniform(-30, 0) / 20)).astype(np.float32)
    return _filter(out, _tilt(rng, length))


def _hum(rng: np.random.Generator, length: int) -> Samples:
    """Return a hum with harmonics, like those of mains and motors."""
    time = np.arange(length, dtype=np.float32) / SAMPLE_RATE_HZ
    pitch = rng.uniform(40, 400) * (1 + rng.uniform(0, 0.1) * np.sin(2 * np.pi * rng.uniform(0.05, 2) * time))
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE_HZ
    tones = (np.sin(h * phase) * rng.uniform() * h ** -rng.uniform(0.3, 1.5) for h in range(1, 15))
    total: Samples = sum(tones).astype(np.float32)
    return total


def change_speed(samples: Samples, speed: float) -> Samples:
    """Play `samples` faster (speed > 1) or slower, pitch included, by linear interpolation."""
    times = np.arange(int(len(samples) / speed), dtype=np.float32) * np.float32(speed)
    left = times.astype(np.int64)
    right = np.minimum(left + 1, len(samples) - 1)
    weight = times - left.astype(np.float32)
    return samples[left] * (1 - weight) + samples[right] * weight


def _bins(length: int) -> int:
    """Return the number of bins of a Fourier transform of at least twice the length, a power of two."""
    return (1 << (2 * length - 1).bit_length()) // 2 + 1


def _filter(samples: Samples, response: NDArray[np.complex64]) -> Samples:
    """Filter by a frequency response, [_bins(len(samples))], without circular wrap-around."""
    size = 2 * (len(response) - 1)
    return np.fft.irfft(np.fft.rfft(samples, size) * response, size)[: len(samples)].astype(np.float32)


def _tilt(rng: np.random.Generator, length: int) -> NDArray[np.complex64]:
    """Return the response of a microphone or loudspeaker: smooth, within a range of 15 dB."""
    levels_db = np.interp(np.linspace(0, 5, _bins(length)), np.arange(6), rng.uniform(-10, 5, 6))
    return (10 ** (levels_db / 20)).astype(np.complex64)


def _room(rng: np.random.Generator, length: int) -> NDArray[np.complex64]:
    """Return the response of a synthetic room: a direct path, and noise that decays by 60 dB within 0.7 s."""
    decay = rng.uniform(0.1, 0.7)
    tail = rng.standard_normal(int(decay * SAMPLE_RATE_HZ), np.float32)
    tail *= np.exp(-6.9 * np.arange(len(tail)) / len(tail)).astype(np.float32)
    tail *= np.float32(10 ** (rng.uniform(-12, 3) / 20) / np.sqrt(np.square(tail).sum()))
    impulse = np.concatenate((np.ones(1, np.float32), np.zeros(int(rng.integers(16, 160)), np.float32), tail))
    return np.fft.rfft(impulse[:length], 2 * (_bins(length) - 1)).astype(np.complex64)


def _telephone(rng: np.random.Generator, length: int) -> NDArray[np.complex64]:
    """Return the response of a telephone: low-pass at 3.4 to 4 kHz, half of the time with a high-pass too."""
    hz = np.linspace(0, SAMPLE_RATE_HZ / 2, _bins(length))
    low, high = rng.uniform(50, 300) * (rng.random() < 0.5), rng.uniform(3400, 4000)
    return (1 / (1 + (low / np.maximum(hz, 1)) ** 4) / (1 + (hz / high) ** 40)).astype(np.complex64)


def _mu_law(samples: Samples) -> Samples:
    """Quantise like 8-bit mu-law (ITU-T G.711, by its continuous formula)."""
    companded = np.log1p(255 * np.minimum(np.abs(samples), 1)) / np.float32(np.log(256))
    levels = np.rint(companded * 127) / 127
    expanded: Samples = np.expm1(levels * np.float32(np.log(256))) / 255
    return np.copysign(expanded, samples)
