"""Room acoustics: impulse responses of simulated rooms, and recordings through them.

Early reflections come from the image method (Allen and Berkley 1979) in a box whose walls reflect all
frequencies alike. The late reverberation is noise that decays by 60 dB within the reverberation time (RT60),
faster above a crossover frequency, at the energy that the image method would have there on average.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from earmark_training.data.corpus import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Samples = NDArray[np.float32]

_SOUND_M_PER_S = 343.0
_EARLY_S = 0.05
_SMALLEST_M, _LARGEST_M = (2.4, 2.0, 2.2), (9.0, 7.0, 3.6)
_WALL_MARGIN_M = 0.3
_CROSSOVER_HZ = 2000.0
_COHERENT_BOUNCES = 2
_HIGH_DECAYS_FASTER = (1.0, 1.7)


@dataclass(frozen=True, slots=True)
class Room:
    """A box in metres, with a source and a microphone in it."""

    size: NDArray[np.float64]
    source: NDArray[np.float64]
    microphone: NDArray[np.float64]
    rt60_s: float
    high_decay: float
    """How many times faster the reverberation decays above 2 kHz."""

    @property
    def distance(self) -> float:
        """Metres from the source to the microphone."""
        return float(np.linalg.norm(self.source - self.microphone))


def draw_room(rng: np.random.Generator, rt60_s: tuple[float, float], distance_m: tuple[float, float]) -> Room:
    """Draw a room at random, with its RT60 and its distance of microphone and source in those ranges."""
    while True:
        size = rng.uniform(_SMALLEST_M, _LARGEST_M)
        source, microphone = rng.uniform(_WALL_MARGIN_M, size - _WALL_MARGIN_M, (2, 3))
        room = Room(size, source, microphone, rng.uniform(*rt60_s), rng.uniform(*_HIGH_DECAYS_FASTER))
        if distance_m[0] <= room.distance <= distance_m[1]:
            return room


def impulse_response(rng: np.random.Generator, room: Room) -> Samples:
    """Return the room's impulse response from the direct sound on, whose peak is 1, [n] at 16 kHz."""
    length = int(room.rt60_s * SAMPLE_RATE_HZ)
    response = _early(rng, room, min(length, int(_EARLY_S * SAMPLE_RATE_HZ)))
    response = np.pad(response, (0, length - len(response)))
    response += _late(rng, room, length)
    scaled: Samples = (response * (4 * np.pi * room.distance)).astype(np.float32)
    return scaled


def _early(rng: np.random.Generator, room: Room, length: int) -> NDArray[np.float64]:
    """Return the sum of the image sources that arrive within `length` samples of the direct sound."""
    volume = room.size.prod()
    surface = 2 * (volume / room.size).sum()
    # Eyring: the mean absorption that gives this reverberation time.
    absorption = 1 - np.exp(-24 * np.log(10) * volume / (_SOUND_M_PER_S * surface * room.rt60_s))
    reflection = np.sqrt(1 - absorption)
    reach = room.distance + length / SAMPLE_RATE_HZ * _SOUND_M_PER_S
    offsets, bounces = [], []
    for size, source, microphone in zip(room.size, room.source, room.microphone, strict=True):
        cells = np.arange(-int(reach / size / 2) - 1, int(reach / size / 2) + 2)
        offsets.append(np.concatenate((2 * cells * size + source, 2 * cells * size - source)) - microphone)
        bounces.append(np.concatenate((np.abs(2 * cells), np.abs(2 * cells - 1))))
    x, y, z = np.ix_(*offsets)
    i, j, k = np.ix_(*bounces)
    distance = np.sqrt(x * x + y * y + z * z).ravel()
    order = (i + j + k).ravel()
    arrival = np.rint((distance - room.distance) / _SOUND_M_PER_S * SAMPLE_RATE_HZ).astype(int)
    here = arrival < length
    strength = reflection ** order[here] / (4 * np.pi * distance[here])
    # In a box with hard walls all images have one sign, and pile up at low frequencies as in no real room.
    strength *= np.where(order[here] > _COHERENT_BOUNCES, rng.choice((-1, 1), len(strength)), 1)
    response: NDArray[np.float64] = np.bincount(arrival[here], strength, minlength=length).astype(np.float64)
    return response


def _late(rng: np.random.Generator, room: Room, length: int) -> NDArray[np.float64]:
    """Return decaying noise that begins where the early reflections end, [length]."""
    start = int(_EARLY_S * SAMPLE_RATE_HZ)
    if length <= start:
        return np.zeros(length)
    time = np.arange(length) / SAMPLE_RATE_HZ
    spectrum = np.fft.rfft(rng.standard_normal(length))
    high = np.fft.rfftfreq(length, 1 / SAMPLE_RATE_HZ) > _CROSSOVER_HZ
    bands = (np.fft.irfft(spectrum * part, length) for part in (~high, high))
    travelled = time + room.distance / _SOUND_M_PER_S
    decays = (10 ** (-3 * travelled * rate / room.rt60_s) for rate in (1.0, room.high_decay))
    noise = sum(band * decay for band, decay in zip(bands, decays, strict=True))
    # Images arrive 4 pi c^3 t^2 / V times a second, each with the energy (4 pi c t)^-2.
    density = _SOUND_M_PER_S / (4 * np.pi * room.size.prod()) / SAMPLE_RATE_HZ
    late: NDArray[np.float64] = noise * np.sqrt(density) * (time >= _EARLY_S)
    return late


def reverberate(samples: Samples, response: Samples) -> Samples:
    """Return the samples [n] through a room, [n] as well: the reverberation after the end is cut off."""
    size = 1 << (len(samples) + len(response) - 1).bit_length()
    wet = np.fft.irfft(np.fft.rfft(samples, size) * np.fft.rfft(response, size), size)
    return wet[: len(samples)].astype(np.float32)
