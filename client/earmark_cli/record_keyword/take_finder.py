"""Finds the word in what the microphone records after a prompt, and cuts it out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from earmark_audio.endpointing import locate_word
from earmark_audio.utterance import UtteranceError, find_word

if TYPE_CHECKING:
    from numpy.typing import NDArray

PATIENCE_S = 8.0
"""How long a prompt waits for a word."""

_QUIET_AFTER_S = 0.6
_MARGIN_S = 0.4
_LEAST_BEFORE_S = 0.1
_LONGEST_S = 4.0
_QUIET_PEAK_DB = -34.0
_FULL_SCALE = 0.99
_SHORTEST_S = 0.15


@dataclass(frozen=True, slots=True)
class Take:
    """A take of the keyword: float32 [n] with a little silence around the word, and where the word is."""

    samples: NDArray[np.float32]
    word: tuple[int, int]
    sample_rate_hz: int

    @property
    def spoken(self) -> NDArray[np.float32]:
        """The samples of the word."""
        return self.samples[slice(*self.word)]

    @property
    def peak_db(self) -> float:
        """The peak of the word, in dB relative to full scale."""
        return float(20 * np.log10(np.abs(self.spoken).max() + 1e-9))


class TakeFinder:
    """Collects the blocks of one prompt until they contain a whole word."""

    def __init__(self, sample_rate_hz: int) -> None:
        self.sample_rate_hz = sample_rate_hz
        self._blocks: list[NDArray[np.float32]] = []
        self._count = 0

    def push(self, block: NDArray[np.float32]) -> Take | None:
        """Add a block; return the take once its word is over.

        Raises UtteranceError with the reason and the remedy if the take cannot be used, or no word comes.
        """
        self._blocks.append(block)
        self._count += len(block)
        samples, rate_hz = np.concatenate(self._blocks), self.sample_rate_hz
        word = locate_word(samples, rate_hz)
        if word is not None and word[1] - word[0] < _SHORTEST_S * rate_hz:
            word = None  # a click
        if word is not None and len(samples) - word[1] >= _QUIET_AFTER_S * rate_hz:
            return _cut(samples, word, rate_hz)
        if word is not None and len(samples) - word[0] > _LONGEST_S * rate_hz:
            raise UtteranceError("there was no pause after it: say the keyword alone, in a quiet place")
        if word is None and self._count > PATIENCE_S * rate_hz:
            peak_db = 20 * np.log10(np.abs(samples).max() + 1e-9)
            raise UtteranceError(
                f"no word in {PATIENCE_S:g} s (peak {peak_db:.0f} dBFS): speak up, or check the microphone"
            )
        return None


def _cut(samples: NDArray[np.float32], word: tuple[int, int], rate_hz: int) -> Take:
    """Return the word with a margin around it. Raises UtteranceError if it cannot be trained on."""
    if word[0] < _LEAST_BEFORE_S * rate_hz:
        raise UtteranceError("its beginning is cut off: wait for the prompt")
    margin = int(_MARGIN_S * rate_hz)
    first, last = max(0, word[0] - margin), min(len(samples), word[1] + margin)
    take = Take(samples[first:last], (word[0] - first, word[1] - first), rate_hz)
    if np.abs(take.spoken).max() >= _FULL_SCALE:
        raise UtteranceError("it is clipped: speak more quietly, or move away from the microphone")
    if take.peak_db < _QUIET_PEAK_DB:
        raise UtteranceError(f"it is too quiet (peak {take.peak_db:.0f} dBFS): come closer to the microphone")
    find_word(take.samples, rate_hz)  # as the training will check it
    return take
