"""Clips: which class each is put into, and how that is counted by the known protocols.

* own: the model's classes. Words that it does not know are `_unknown_`; noise is `_silence_`.
* 12: ten words, `_unknown_` and `_silence_` (Warden 2018, arXiv 1804.03209, section 7): the data set's
  published test archive as it is, or its test list, of which a tenth as many unknown words and silences as
  there are words are drawn, as the data set's own code does it.
* 35: every word of the data set, no silence.

A model that knows other words than the protocol is restricted, and what was done is said in `note`.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from earmark_training.data.vocabulary import SILENCE, UNKNOWN
from earmark_training.evaluation.test_material import is_test_archive

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

TWELVE = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
THIRTY_FIVE = (
    *TWELVE, "backward", "bed", "bird", "cat", "dog", "eight", "five", "follow", "forward", "four", "happy",
    "house", "learn", "marvin", "nine", "one", "seven", "sheila", "six", "three", "tree", "two", "visual",
    "wow", "zero",
)  # fmt: skip
_DRAWN_FRACTION = 0.1
_SEED = 59185  # that of the data set's own code


@dataclass(frozen=True, slots=True)
class Answered:
    """Clips, what is said in them (`_silence_`: nothing), and what the model answered, by label."""

    said: tuple[str, ...]
    answers: tuple[str, ...]

    def __add__(self, other: Answered) -> Answered:
        return Answered(self.said + other.said, self.answers + other.answers)

    def only(self, words: Sequence[str]) -> Answered:
        """Leave out clips in which another word is said."""
        return self._take([i for i, word in enumerate(self.said) if word in words])

    def draw(self, count: int) -> Answered:
        """Take that many of the clips by chance, always the same; all where there are fewer."""
        return self._take(np.random.default_rng(_SEED).permutation(len(self.said))[:count].tolist())

    def _take(self, indices: Sequence[int]) -> Answered:
        return Answered(tuple(self.said[i] for i in indices), tuple(self.answers[i] for i in indices))


@dataclass(frozen=True, slots=True)
class Result:
    """Clips counted by one protocol: confusion [classes, classes], rows are what was said."""

    protocol: str
    classes: tuple[str, ...]
    confusion: np.ndarray[Any, np.dtype[np.int64]]
    note: str
    left_out: int = 0
    """Clips of the protocol that no answer of this model could be right for."""

    @property
    def clips(self) -> int:
        """How many clips were counted."""
        return int(self.confusion.sum())

    @property
    def accuracy(self) -> float:
        """The share of clips that are put into their class."""
        return float(self.confusion.trace() / max(1, self.clips))

    def document(self) -> dict[str, Any]:
        """Everything, as JSON takes it."""
        right = self.confusion.diagonal() / np.maximum(1, self.confusion.sum(1))
        return {
            "clips": self.clips,
            "accuracy": round(self.accuracy, 4),
            "left_out": self.left_out,
            "accuracy_if_left_out_are_wrong": round(
                float(self.confusion.trace() / max(1, self.clips + self.left_out)), 4
            ),
            "note": self.note,
            "classes": list(self.classes),
            "accuracy_by_class": {
                c: round(float(r), 4)
                for c, r, n in zip(self.classes, right, self.confusion.sum(1), strict=True)
                if n
            },
            "confusion": self.confusion.tolist(),
        }


def count(answered: Answered, silences: Answered, labels: tuple[str, ...]) -> Iterator[Result]:
    """Count by every protocol for which the clips are there.

    silences: pieces of noise; a test archive brings its own, and they are left aside.
    """
    words = set(answered.said)
    if is_test_archive(words):
        yield _twelve(answered, labels, "as the archive has them")
        return
    known = words.intersection(labels)
    if known:
        strange = words.difference(labels)
        note = f"clips of {len(strange)} other words count as {UNKNOWN}" if strange else ""
        yield _count("own", labels, answered + silences, note)
    if words.issuperset(TWELVE) and not set(TWELVE).isdisjoint(known):
        wanted, others = answered.only(TWELVE), answered.only(tuple(words.difference(TWELVE)))
        drawn = math.ceil(len(wanted.said) * _DRAWN_FRACTION)
        unknown = Answered((UNKNOWN,) * len(others.said), others.answers).draw(drawn)
        silent = silences.draw(drawn)
        how = f"{len(unknown.said)} unknown words and {len(silent.said)} silences, drawn"
        yield _twelve(wanted + unknown + silent, labels, how)
        yield _thirty_five(answered, labels)


def _thirty_five(answered: Answered, labels: tuple[str, ...]) -> Result:
    possible = tuple(w for w in THIRTY_FIVE if w in labels)
    counted = answered.only(possible)
    missing = len(answered.only(THIRTY_FIVE).said) - len(counted.said)
    note = f"restricted to the {len(possible)} of 35 words that the model knows"
    if missing:
        note += f": {missing} clips of others are left out"
    note += f"; {UNKNOWN}, {SILENCE} and any other answer are wrong"
    if absent := [w for w in THIRTY_FIVE if w not in answered.said]:
        note += f"; there are no clips of {', '.join(absent)}"
    classes = (*possible, *(label for label in labels if label not in possible))
    return _count("35", classes, counted, note, missing)


def _twelve(answered: Answered, labels: tuple[str, ...], how: str) -> Result:
    possible = tuple(w for w in TWELVE if w in labels)
    lacking = [w for w in TWELVE if w not in labels]
    counted = answered.only((SILENCE, UNKNOWN, *possible))
    others = [label for label in labels if label not in (SILENCE, UNKNOWN, *TWELVE)]
    answers = tuple(UNKNOWN if a in others else a for a in counted.answers)
    missing = len(answered.said) - len(counted.said)
    note = how
    if lacking:
        note += (
            f"; the model does not know {' and '.join(lacking)}: their {missing} clips are left out "
            f"({len(possible) + 2} of 12 classes)"
        )
    if others:
        note += (
            f"; its answer for any of the {len(others)} keywords that are not in the protocol is {UNKNOWN}"
        )
    return _count("12", (SILENCE, UNKNOWN, *possible), Answered(counted.said, answers), note, missing)


def _count(
    protocol: str, classes: tuple[str, ...], answered: Answered, note: str, left_out: int = 0
) -> Result:
    index = {c: i for i, c in enumerate(classes)}
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    for (said, answer), n in Counter(zip(answered.said, answered.answers, strict=True)).items():
        confusion[index[said if said in index else UNKNOWN], index[answer]] += n
    return Result(protocol, classes, confusion, note, left_out)
