"""Where in a clip the word is, judged by energy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FRAME_SECONDS = 0.01
_SMOOTHING_FRAMES = 5
_GAP_FRAMES = 15  # a stop's closure ("for-ward", "s-t-op") is shorter than this
_DROP_DB = 25.0
_FLOOR_MARGIN_DB = 6.0
_MIN_WORD_FRAMES = 10


def locate_word(samples: NDArray[np.float32], sample_rate_hz: int) -> tuple[int, int] | None:
    """Return the word's (start, end) in samples, or None where energy does not tell.

    The word is the run of 10 ms frames around the loudest one whose smoothed energy stays within 25 dB
    of the maximum and 6 dB above the clip's floor, bridging gaps up to 150 ms. None where the clip is
    silent, or the loudest frame does not stand out from the floor by 10 dB.
    """
    hop = int(sample_rate_hz * _FRAME_SECONDS)
    count = len(samples) // hop
    if count < _MIN_WORD_FRAMES:
        return None
    energy = np.square(samples[: count * hop].reshape(count, hop), dtype=np.float64).mean(axis=1)
    smooth = np.convolve(energy, np.ones(_SMOOTHING_FRAMES) / _SMOOTHING_FRAMES, mode="same")
    level_db = 10 * np.log10(smooth + 1e-12)
    peak = int(level_db.argmax())
    floor_db = float(np.percentile(level_db, 10))
    if level_db[peak] < -70 or level_db[peak] - floor_db < 10:
        return None
    active = level_db > max(level_db[peak] - _DROP_DB, floor_db + _FLOOR_MARGIN_DB)
    start, end = (_edge(active, peak, -1), _edge(active, peak, 1) + 1)
    if end - start < _MIN_WORD_FRAMES:
        return None
    return start * hop, end * hop


def _edge(active: NDArray[np.bool_], peak: int, direction: int) -> int:
    """Walk from `peak` until no active frame lies within the allowed gap; return the last active one."""
    edge = peak
    position = peak
    while 0 <= position < len(active) and abs(position - edge) <= _GAP_FRAMES:
        if active[position]:
            edge = position
        position += direction
    return edge
