"""Surroundings of a voice: rooms, loudspeakers and telephones, in most of the recordings.

The first cycles of a training use `augment.vary_voice`; those that follow use this.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np

from earmark_training.data import augment
from earmark_training.data.corpus import SAMPLE_RATE_HZ
from earmark_training.data.rooms import draw_room, impulse_response, reverberate

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Samples = NDArray[np.float32]

_SPEED = (0.85, 1.18)
_EQUALIZER, _ROOM, _CLIPPING, _TELEPHONE, _LOUDSPEAKER = 0.4, 0.5, 0.07, 0.22, 0.1
_RT60_S, _DISTANCE_M = (0.2, 1.0), (0.4, 4.5)
_ROOMS, _ROOMS_SEED = 500, 1
_LOUDSPEAKER_HZ = ((120.0, 500.0), (3500.0, 7500.0))


def place_voice(rng: np.random.Generator, samples: Samples) -> tuple[Samples, float]:
    """Return the recording at another speed, mostly in a room or through a telephone; and the speed."""
    speed = float(rng.uniform(*_SPEED))
    samples = augment.change_speed(samples, speed)
    if rng.random() < _EQUALIZER:
        samples = augment.equalize(rng, samples)
    if rng.random() < _LOUDSPEAKER:
        samples = loudspeaker(rng, samples)
    if rng.random() < _ROOM:
        samples = in_training_room(rng, samples)
    if rng.random() < _CLIPPING:
        limit = np.float32(np.abs(samples).max() * rng.uniform(0.2, 0.8))
        samples = np.clip(samples, -limit, limit)
    if rng.random() < _TELEPHONE:
        samples = augment.telephone(rng, samples)
    return np.clip(samples, -1, 1), speed


def in_training_room(rng: np.random.Generator, samples: Samples) -> Samples:
    """Return the samples in one of the rooms that training uses, at their level."""
    rooms = training_rooms()
    return at_level_of(samples, reverberate(samples, rooms[rng.integers(len(rooms))]))


@functools.cache
def training_rooms() -> list[Samples]:
    """Return the impulse responses that training uses: always the same."""
    rng = np.random.default_rng(_ROOMS_SEED)
    return [impulse_response(rng, draw_room(rng, _RT60_S, _DISTANCE_M)) for _ in range(_ROOMS)]


def loudspeaker(rng: np.random.Generator, samples: Samples) -> Samples:
    """Return the samples from a small loudspeaker: without low and high bands, slightly distorted."""
    low_hz, high_hz = (rng.uniform(*band) for band in _LOUDSPEAKER_HZ)
    played = loudspeaker_band(samples, low_hz, high_hz)
    drive = 10 ** rng.uniform(-1, 0.3) / (np.abs(played).max() + 1e-9)
    return at_level_of(samples, np.tanh(drive * played).astype(np.float32))


def loudspeaker_band(samples: Samples, low_hz: float, high_hz: float) -> Samples:
    """Return the samples in the band of a small loudspeaker, at whose limits they have half the amplitude."""
    size = 1 << (2 * len(samples) - 1).bit_length()
    hz = np.fft.rfftfreq(size, 1 / SAMPLE_RATE_HZ)
    response = 1 / (1 + (low_hz / np.maximum(hz, 1)) ** 4) / (1 + (hz / high_hz) ** 8)
    return np.fft.irfft(np.fft.rfft(samples, size) * response, size)[: len(samples)].astype(np.float32)


def at_level_of(samples: Samples, changed: Samples) -> Samples:
    """Return `changed` at the mean power of `samples`, unless it would clip: then at most at full scale."""
    gain = np.sqrt(np.square(samples).mean() / (np.square(changed).mean() + 1e-12))
    scaled: Samples = changed * np.float32(min(gain, 1 / (np.abs(changed).max() + 1e-9)))
    return scaled
