"""Recognition of samples whose format is not the stated one, such as big-endian samples.

Samples of one format that are read as another are loud noise, and noise changes from sample to sample. Read
in the right format, the same bytes change far less.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from earmark_audio import MAX_PEAK

from earmark_spotter.audio import Encoding, alaw_table, mulaw_table

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from earmark_spotter.audio import AudioFormat
    from earmark_spotter.model import Float32Array

_ROUGH = 0.4
"""Mean change from sample to sample, over the mean magnitude: 1.3 to 1.4 for noise."""

_MUCH_SMOOTHER = 0.6
_QUIETER = 0.4
_MUCH_QUIETER = 0.1
_QUIETEST = 1e-5


@dataclass(frozen=True, slots=True)
class _Change:
    """How much samples change: the mean magnitude, and the mean change from one to the next."""

    magnitude: float
    change: float

    @property
    def roughness(self) -> float:
        return self.change / self.magnitude if self.magnitude > 0 else 0.0


def other_format(data: bytes, audio_format: AudioFormat) -> str | None:
    """Return which format whole frames of audio seem to have, in words; None if not clearly another one."""
    channels = audio_format.channel_count
    stated = _change(_READERS[audio_format.encoding](data), channels)
    if stated is None or stated.roughness < _ROUGH:
        return None
    if audio_format.encoding is Encoding.LINEAR16 and _is_constant(np.frombuffer(data, np.uint8)[::2]):
        return None  # 8-bit samples in 16 bits
    found, least = None, stated.change
    for name, read in _CANDIDATES[audio_format.encoding]:
        other = _change(read(data), channels)
        if (
            other is not None
            and other.magnitude > _QUIETEST
            and other.change < least
            and (
                other.change < _MUCH_QUIETER * stated.change
                or (
                    other.change < _QUIETER * stated.change
                    and other.roughness < _MUCH_SMOOTHER * stated.roughness
                )
            )
        ):
            found, least = name, other.change
    return found


def _is_constant(values: NDArray[np.uint8]) -> bool:
    return bool((values == values[:1]).all())


def _change(samples: Float32Array, channels: int) -> _Change | None:
    """Return the change of interleaved samples; None if they are no audio."""
    frames = samples[: len(samples) // channels * channels].reshape(-1, channels)
    if len(frames) < 2:
        return None
    magnitudes = np.abs(frames)
    if not float(magnitudes.max()) <= MAX_PEAK:  # NaN too
        return None
    return _Change(float(magnitudes.mean()), float(np.abs(np.diff(frames, axis=0)).mean()))


def _little_endian(data: bytes) -> Float32Array:
    scaled: Float32Array = np.frombuffer(data[: len(data) // 2 * 2], "<i2") * np.float32(1 / 32768)
    return scaled


def _big_endian(data: bytes) -> Float32Array:
    samples = np.frombuffer(data[: len(data) // 2 * 2], ">i2")
    scaled: Float32Array = samples * np.float32(1 / 32768)
    return scaled


def _float32(data: bytes) -> Float32Array:
    return np.frombuffer(data[: len(data) // 4 * 4], "<f4").astype(np.float32, copy=False)


def _mulaw(data: bytes) -> Float32Array:
    return mulaw_table()[np.frombuffer(data, np.uint8)]


def _alaw(data: bytes) -> Float32Array:
    return alaw_table()[np.frombuffer(data, np.uint8)]


_READERS: dict[Encoding, Callable[[bytes], Float32Array]] = {
    Encoding.LINEAR16: _little_endian,
    Encoding.FLOAT32: _float32,
    Encoding.MULAW: _mulaw,
    Encoding.ALAW: _alaw,
}
_CANDIDATES: dict[Encoding, tuple[tuple[str, Callable[[bytes], Float32Array]], ...]] = {
    Encoding.LINEAR16: (
        ("big-endian 16-bit samples, or little-endian ones from which a byte was lost", _big_endian),
        ("32-bit floats (FLOAT32)", _float32),
        ("mu-law (MULAW)", _mulaw),
        ("A-law (ALAW)", _alaw),
    ),
    Encoding.FLOAT32: (),
    Encoding.MULAW: (("16-bit samples (LINEAR16)", _little_endian), ("A-law (ALAW)", _alaw)),
    Encoding.ALAW: (("16-bit samples (LINEAR16)", _little_endian), ("mu-law (MULAW)", _mulaw)),
}
