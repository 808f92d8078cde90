"""Where in read speech the words of its transcript are: an estimate, with the tolerance that it needs.

No aligner is used. The time in which somebody speaks, judged by energy, is shared out among the words by
their length in letters. Detections of keywords that a transcript has once lie, where they are right,
within 0.25 s of the place so found (median), 95% of them within 0.75 s and 2% of the utterance's length;
those beyond are scattered over the whole utterance (measured on LibriSpeech dev-clean and train-clean-5).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from earmark_training.data.corpus import SAMPLE_RATE_HZ
from earmark_training.data.vocabulary import heard_as

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_HOP_SAMPLES = SAMPLE_RATE_HZ // 100
_SMOOTHING_FRAMES = 5
_DROP_DB = 30.0
_FLOOR_MARGIN_DB = 6.0
_LETTERS_PER_WORD = 2  # a word lasts as long as its letters and this: short words are not that short
_TOLERANCE_SAMPLES = SAMPLE_RATE_HZ * 3 // 4
_TOLERANCE_OF_LENGTH = 0.02


@dataclass(frozen=True, slots=True)
class Placed:
    """A word of a transcript, and from where to where it is expected (samples)."""

    text: str
    start: int
    end: int


def place_words(samples: NDArray[np.float32], transcript: str) -> tuple[Placed, ...]:
    """Return the transcript's words, lower case, with their expected places in the audio, [n] at 16 kHz."""
    words = transcript.lower().split()
    speaking = np.concatenate(([0], np.cumsum(_speech_frames(samples))))
    if not words or not speaking[-1]:
        return tuple(Placed(word, 0, len(samples)) for word in words)
    lengths = np.cumsum([0, *(len(word) + _LETTERS_PER_WORD for word in words)])
    shares = lengths / lengths[-1] * speaking[-1]
    # From the last frame before more speech was heard to the first by which enough was: pauses between
    # words belong to none.
    starts = (np.searchsorted(speaking, shares[:-1], side="right") - 1) * _HOP_SAMPLES
    ends = np.searchsorted(speaking, shares[1:], side="left") * _HOP_SAMPLES
    return tuple(
        Placed(word, start, end)
        for word, start, end in zip(words, starts.tolist(), ends.tolist(), strict=True)
    )


def _speech_frames(samples: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return which 10 ms frames are within 30 dB of the loudest and 6 dB above the quietest, [frames]."""
    count = len(samples) // _HOP_SAMPLES
    if not count:
        return np.zeros(0, bool)
    energy = np.square(samples[: count * _HOP_SAMPLES].reshape(count, -1), dtype=np.float64).mean(axis=1)
    level_db = 10 * np.log10(
        np.convolve(energy, np.full(_SMOOTHING_FRAMES, 0.2), mode="same")[:count] + 1e-10
    )
    quiet, loud = np.percentile(level_db, (5, 95))
    active: NDArray[np.bool_] = level_db > max(quiet + _FLOOR_MARGIN_DB, loud - _DROP_DB)
    return active


def tolerance_samples(length: int) -> int:
    """Return by how far a word's place may be off in an utterance of `length` samples."""
    return int(_TOLERANCE_SAMPLES + _TOLERANCE_OF_LENGTH * length)


def is_spoken_at(words: Sequence[Placed], keyword: str, middle: float, length: int) -> bool:
    """Return whether the transcript has the keyword, or what is heard as it, about sample `middle`.

    words: from `place_words`, of an utterance of `length` samples.
    """
    accepted, tolerance = heard_as(keyword), tolerance_samples(length)
    return any(w.text in accepted and abs((w.start + w.end) / 2 - middle) <= tolerance for w in words)
