"""Levels of a recording: peak, clipping, DC, silence, and channels that cancel each other."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from earmark_audio.notices import Notice

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FULL_SCALE = 0.999
_CLIPPED_SHARE = 0.05
"""Speech that was recorded too loud has at most a few hundredths of its samples at full scale. Noise that
comes of a wrong format has more."""

_SILENCE_S = 60.0
_LEAST_PEAK = 0.5 / 32768
"""Smaller samples, such as denormal floats, become zero in 16 bits."""
_CANCELLED_SHARE = 1e-2
"""Power of the mix over the mean power of the channels. Two microphones with nothing in common lose 3 dB, and
eight of them 9 dB; 20 dB are no accident."""

_CANCELLED_PART = 0.2
"""It is reported if the blocks in which the channels cancel have more than this share of the power."""

_CHANNELS_CANCEL = Notice(
    "CHANNELS_CANCEL",
    "The channels cancel each other, at least part of the time: their mean is then nearly silent. "
    "Choose one of them (--channel 1), or check the microphone's wiring.",
)
_ALL_SILENT = Notice(
    "DIGITAL_SILENCE", "Every sample is zero in 16 bits: the audio is digital silence. Check the microphone."
)


class Levels:
    """What passed: sums over all blocks. All values are relative to full scale."""

    def __init__(self, sample_rate_hz: int, channels: int) -> None:
        self.sample_rate_hz = sample_rate_hz
        self.channels = channels
        self.frames = 0
        self.peak = 0.0
        self._clipped = 0
        self._sum = 0.0
        self._power = 0.0
        self._cancelled_power = 0.0
        self._silent_frames = 0

    def add(self, samples: NDArray[np.float32], mixed: NDArray[np.float32]) -> None:
        """Count a block: all its channels, [n, channels], and their mean, [n]."""
        if not len(samples):
            return
        magnitude = np.abs(samples)
        peak = float(magnitude.max())
        self.frames += len(samples)
        self.peak = max(self.peak, peak)
        self._silent_frames += len(samples) if peak == 0 else 0
        if peak >= _FULL_SCALE:
            self._clipped += int((magnitude >= _FULL_SCALE).any(axis=1).sum())
        self._sum += float(mixed.sum(dtype=np.float64))
        power = float(np.square(samples, dtype=np.float64).mean(axis=1).sum())
        self._power += power
        if _cancel(power, float(np.square(mixed, dtype=np.float64).sum())):
            self._cancelled_power += power

    @property
    def level_dbfs(self) -> float:
        """Root mean square of all channels, in dB relative to full scale (a square wave at full scale: 0)."""
        return _decibels(self._power / self.frames) if self.frames else -math.inf

    @property
    def peak_dbfs(self) -> float:
        """The largest sample, in dB relative to full scale."""
        return _decibels(self.peak**2)

    @property
    def clipped_share(self) -> float:
        """Share of the samples that are at full scale."""
        return self._clipped / self.frames if self.frames else 0.0

    @property
    def dc(self) -> float:
        """Mean of all samples."""
        return self._sum / self.frames if self.frames else 0.0

    @property
    def channels_cancel(self) -> bool:
        """Whether the channels, or those of a part of the recording, cancel each other in their mean."""
        return self.channels > 1 and self._cancelled_power > _CANCELLED_PART * self._power

    def notices(self) -> list[Notice]:
        """Return a notice for everything that looks wrong."""
        found = []
        if self.channels_cancel:
            found.append(_CHANNELS_CANCEL)
        if self.clipped_share > _CLIPPED_SHARE:
            found.append(
                Notice(
                    "CLIPPED",
                    f"{self.clipped_share:.0%} of the samples are at full scale: the audio is clipped, or "
                    "its format is not the stated one.",
                )
            )
        if self.frames and self.peak < _LEAST_PEAK:
            found.append(_ALL_SILENT)
        elif self._silent_frames > _SILENCE_S * self.sample_rate_hz:
            silent_s = self._silent_frames / self.sample_rate_hz
            found.append(Notice("DIGITAL_SILENCE", f"{silent_s:.0f} s of the audio are digital silence."))
        return found


def channels_cancel(samples: NDArray[np.float32]) -> bool:
    """Return whether the channels of samples, [n, channels], cancel each other in their mean."""
    if samples.shape[1] == 1:
        return False
    power = float(np.square(samples, dtype=np.float64).mean(axis=1).sum())
    return _cancel(power, float(np.square(mix_down(samples), dtype=np.float64).sum()))


def _cancel(power: float, mixed_power: float) -> bool:
    return power > 0 and mixed_power < _CANCELLED_SHARE * power


def _decibels(power: float) -> float:
    return 10 * math.log10(power) if power > 0 else -math.inf


def mix_down(samples: NDArray[Any]) -> NDArray[np.float32]:
    """Mix channels to one by their mean: [n, channels] to [n], rounded the same however audio is split."""
    channel_count = samples.shape[1]
    mixed: NDArray[np.float32] = samples[:, 0]
    if channel_count == 1:
        return mixed
    # Not a matrix product, whose rounding depends on the number of samples.
    weight = np.float32(1 / channel_count)
    mixed = mixed * weight
    for channel in range(1, channel_count):
        mixed += samples[:, channel] * weight
    return mixed
