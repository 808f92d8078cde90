"""Surroundings as a mel power spectrum shows them: reverberation and band limits, drawn for every example.

The late reverberation of a room is, in power, the sound itself convolved with an exponential decay (Lebart et
al. 2001), times the fluctuation that many reflections of random phase make of it. A telephone or a small
loudspeaker is a gain per band. Both cost a fraction of what they cost as samples.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Power = NDArray[np.float32]

_RT60_S = (0.15, 0.9)
_DIRECT_TO_REVERBERANT_DB = (-12.0, 8.0)
_HIGH_DECAYS_FASTER = (1.0, 1.9)
_RIPPLE_DB = 2.5
_TELEPHONE_HZ = ((50.0, 350.0), (3300.0, 4000.0))
_LOUDSPEAKER_HZ = ((120.0, 500.0), (3500.0, 7500.0))
_SMOOTHING = np.array((0.25, 0.5, 0.25), np.float32)


def reverberate(rng: np.random.Generator, power: Power, bins_per_band: Power, seconds: float) -> None:
    """Put a spectrum [frames, mels] into a room, in place, at its mean level.

    bins_per_band: how many independent bins of the Fourier transform each band has, [mels].
    seconds: from one frame to the next.
    """
    frames, mels = power.shape
    before = power.mean()
    rt60 = rng.uniform(*_RT60_S) / np.linspace(1, rng.uniform(*_HIGH_DECAYS_FASTER), mels)
    per_frame = 10 ** (-6 * seconds / rt60)
    length = min(frames, int(1.2 * rt60.max() / seconds))
    decay = per_frame ** np.arange(length)[:, None]
    # The first frame's reverberation overlaps with the direct sound.
    decay[0] *= 0.5
    decay /= decay.sum(0)
    size = 1 << (frames + length - 1).bit_length()
    late = np.fft.irfft(
        np.fft.rfft(power, size, axis=0) * np.fft.rfft(decay.astype(np.float32), size, axis=0), size, axis=0
    )
    late = np.maximum(late[:frames], 0).astype(np.float32)
    # Frames overlap by half, so the fluctuation of one is partly that of the next.
    speckle = rng.standard_gamma(bins_per_band, (frames + 2, mels), np.float32) / bins_per_band
    late *= sum(w * speckle[i : frames + i] for i, w in enumerate(_SMOOTHING))
    ratio = 10 ** (rng.uniform(*_DIRECT_TO_REVERBERANT_DB) / 10)
    ripple = 10 ** (rng.normal(0, _RIPPLE_DB, mels) / 10)
    power *= np.asarray(ratio * ripple, np.float32)
    power += late
    power *= np.float32(before / max(float(power.mean()), 1e-12))


def limit_band(rng: np.random.Generator, power: Power, band_hz: NDArray[np.float64]) -> None:
    """Pass a spectrum [frames, mels] through a telephone or a small loudspeaker, in place.

    band_hz: the middle of each mel band, [mels].
    """
    telephone = rng.random() < 0.6
    low, high = (rng.uniform(*edge) for edge in (_TELEPHONE_HZ if telephone else _LOUDSPEAKER_HZ))
    if telephone and rng.random() < 0.4:
        low = 30.0
    gains = 1 / (1 + (low / band_hz) ** 4) ** 2 / (1 + (band_hz / high) ** (30 if telephone else 8)) ** 2
    power *= np.maximum(gains, 1e-8).astype(np.float32)
