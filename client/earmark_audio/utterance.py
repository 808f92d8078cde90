"""Whether a recording contains one word that a model can be trained on, and where it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from earmark_audio.endpointing import locate_word

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MIN_S = 0.3
_MAX_WORD_S = 2.5
_SILENT_PEAK = 10 ** (-50 / 20)
_CLIPPED_SHARE = 0.02
_CLIPPED_LEVEL = 0.999


class UtteranceError(Exception):
    """The recording cannot be used; the message is the reason and the remedy."""


def find_word(samples: NDArray[np.float32], sample_rate_hz: int) -> tuple[int, int]:
    """Return the (start, end) of the one word in a recording [n], in samples. Raises UtteranceError."""
    if len(samples) < _MIN_S * sample_rate_hz:
        raise UtteranceError(f"it is {len(samples) / sample_rate_hz:.2f} s long: too short for a word")
    if not np.isfinite(samples).all():
        raise UtteranceError("it contains samples that are not finite numbers")
    if float(np.abs(samples).max()) < _SILENT_PEAK:
        raise UtteranceError("it is silent: check the microphone")
    word = locate_word(samples, sample_rate_hz)
    if word is None:
        raise UtteranceError("no word stands out from its noise: record it closer to the microphone")
    if _is_clipped(samples[slice(*word)]):
        raise UtteranceError("it is clipped: record it at a lower level")
    seconds = (word[1] - word[0]) / sample_rate_hz
    if seconds > _MAX_WORD_S:
        raise UtteranceError(f"it contains {seconds:.1f} s of speech: record the keyword alone")
    return word


def _is_clipped(word: NDArray[np.float32]) -> bool:
    """Return whether a word is clipped: many successive samples are at the peak level.

    Of 795 unclipped recordings of two words, none had more than a tenth of this share of such samples; when
    they were clipped at a quarter of their peak, all had more than this share.
    """
    at_peak = np.abs(word) >= _CLIPPED_LEVEL * np.abs(word).max()
    return float((at_peak[1:] & at_peak[:-1]).mean()) > _CLIPPED_SHARE
