"""Energy endpointing: find the speech in a recording by its short-term level."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

FRAME_SECONDS = 0.01

_SMOOTHING_FRAMES = 5
_FLOOR_MARGIN_DB = 6.0

_GAP_FRAMES = 15  # longer than the closure of a plosive ("for-ward", "s-t-op")
_WORD_DROP_DB = 25.0
_MIN_WORD_FRAMES = 10
_SILENT_DB = -70.0
_MIN_CONTRAST_DB = 10.0

_SPEECH_DROP_DB = 30.0


def locate_word(samples: NDArray[np.float32], sample_rate_hz: int) -> tuple[int, int] | None:
    """Return the (start, end) of the one word in a recording [n], in samples.

    The word is the run of 10 ms frames around the loudest one whose smoothed energy stays within 25 dB
    of the maximum and 6 dB above the recording's noise floor. Gaps of up to 150 ms are bridged. Return
    None if the recording is silent, or if the loudest frame is less than 10 dB above the noise floor.
    """
    hop = int(sample_rate_hz * FRAME_SECONDS)
    if len(samples) // hop < _MIN_WORD_FRAMES:
        return None
    level_db = _level_db(samples, hop, least_power=1e-12)
    peak = int(level_db.argmax())
    floor_db = float(np.percentile(level_db, 10))
    if level_db[peak] < _SILENT_DB or level_db[peak] - floor_db < _MIN_CONTRAST_DB:
        return None
    active = level_db > max(level_db[peak] - _WORD_DROP_DB, floor_db + _FLOOR_MARGIN_DB)
    start, end = (_edge(active, peak, -1), _edge(active, peak, 1) + 1)
    if end - start < _MIN_WORD_FRAMES:
        return None
    return start * hop, end * hop


def speech_frames(samples: NDArray[np.float32], sample_rate_hz: int) -> NDArray[np.bool_]:
    """Return which 10 ms frames of a recording [n] contain speech, [frames].

    Those are the frames within 30 dB of the loudest and 6 dB above the quietest, where loudest and quietest
    are the 95th and the 5th percentile.
    """
    hop = int(sample_rate_hz * FRAME_SECONDS)
    if len(samples) < hop:
        return np.zeros(0, bool)
    level_db = _level_db(samples, hop, least_power=1e-10)
    quiet, loud = np.percentile(level_db, (5, 95))
    active: NDArray[np.bool_] = level_db > max(quiet + _FLOOR_MARGIN_DB, loud - _SPEECH_DROP_DB)
    return active


def _level_db(samples: NDArray[np.float32], hop: int, *, least_power: float) -> NDArray[np.float64]:
    """Return the smoothed level of each frame of `hop` samples, in dB, [frames]."""
    count = len(samples) // hop
    power = np.square(samples[: count * hop].reshape(count, hop), dtype=np.float64).mean(axis=1)
    kernel = np.full(_SMOOTHING_FRAMES, 1 / _SMOOTHING_FRAMES)
    level_db: NDArray[np.float64] = 10 * np.log10(
        np.convolve(power, kernel, mode="same")[:count] + least_power
    )
    return level_db


def _edge(active: NDArray[np.bool_], peak: int, direction: int) -> int:
    """Walk from `peak` in `direction` over gaps of at most `_GAP_FRAMES`; return the last active frame."""
    edge = peak
    position = peak
    while 0 <= position < len(active) and abs(position - edge) <= _GAP_FRAMES:
        if active[position]:
            edge = position
        position += direction
    return edge
