"""Classification accuracy on clips, by the published protocols.

* own: the model's classes. Words that it does not know are `_unknown_`; noise is `_silence_`.
* 12: ten words, `_unknown_` and `_silence_` (Warden 2018, arXiv 1804.03209, section 7). Either the data set's
  published test archive as it is; or its test list, with a tenth as many unknown words and as many silences
  as there are words, drawn at random as the data set's own code does.
* 35: every word of the data set, without silence.

For a model that lacks words of the protocol, the protocol is restricted, and `note` says how.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from earmark_training.data.vocabulary import SILENCE, UNKNOWN
from earmark_training.evaluation.evaluation_set import is_test_archive

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

TWELVE = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
THIRTY_FIVE = (
    *TWELVE, "backward", "bed", "bird", "cat", "dog", "eight", "five", "follow", "forward", "four", "happy",
    "house", "learn", "marvin", "nine", "one", "seven", "sheila", "six", "three", "tree", "two", "visual",
    "wow", "zero",
)  # fmt: skip
_DRAWN_FRACTION = 0.1
_SEED = 59185  # that of the data set's own code


@dataclass(frozen=True, slots=True)
class ClassifiedClips:
    """The true label of each clip (`_silence_` without speech), and the label that the model predicted."""

    true: tuple[str, ...]
    predicted: tuple[str, ...]

    def __add__(self, other: ClassifiedClips) -> ClassifiedClips:
        return ClassifiedClips(self.true + other.true, self.predicted + other.predicted)

    def only(self, words: Sequence[str]) -> ClassifiedClips:
        """Return the clips of the given words."""
        return self._select([i for i, word in enumerate(self.true) if word in words])

    def sample(self, count: int) -> ClassifiedClips:
        """Return `count` random clips, always the same ones; all of them if there are fewer."""
        return self._select(np.random.default_rng(_SEED).permutation(len(self.true))[:count].tolist())

    def _select(self, indices: Sequence[int]) -> ClassifiedClips:
        return ClassifiedClips(
            tuple(self.true[i] for i in indices), tuple(self.predicted[i] for i in indices)
        )


@dataclass(frozen=True, slots=True)
class ProtocolResult:
    """The result of one protocol: its confusion matrix [classes, classes], with true classes as rows."""

    protocol: str
    classes: tuple[str, ...]
    confusion: NDArray[np.int64]
    note: str
    left_out: int = 0
    """Clips of the protocol that this model cannot classify correctly, since it lacks their class."""

    @property
    def clips(self) -> int:
        """The number of clips that were counted."""
        return int(self.confusion.sum())

    @property
    def accuracy(self) -> float:
        """The classification accuracy."""
        return float(self.confusion.trace() / max(1, self.clips))

    def document(self) -> dict[str, Any]:
        """Return the result as a JSON document."""
        recall = self.confusion.diagonal() / np.maximum(1, self.confusion.sum(1))
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
                for c, r, n in zip(self.classes, recall, self.confusion.sum(1), strict=True)
                if n
            },
            "confusion": self.confusion.tolist(),
        }


def results_by_protocol(
    clips: ClassifiedClips, silences: ClassifiedClips, labels: tuple[str, ...]
) -> Iterator[ProtocolResult]:
    """Yield the result of every protocol whose clips are there.

    `silences` are pieces of noise. They are not used with a test archive, which has its own.
    """
    words = set(clips.true)
    if is_test_archive(words):
        yield _twelve(clips, labels, "the published test archive")
        return
    known = words.intersection(labels)
    if known:
        unknown_words = words.difference(labels)
        note = f"clips of {len(unknown_words)} other words count as {UNKNOWN}" if unknown_words else ""
        yield _result("own", labels, clips + silences, note)
    if words.issuperset(TWELVE) and not set(TWELVE).isdisjoint(known):
        wanted, others = clips.only(TWELVE), clips.only(tuple(words.difference(TWELVE)))
        drawn = math.ceil(len(wanted.true) * _DRAWN_FRACTION)
        unknown = ClassifiedClips((UNKNOWN,) * len(others.true), others.predicted).sample(drawn)
        silent = silences.sample(drawn)
        note = f"with {len(unknown.true)} unknown words and {len(silent.true)} silences, drawn at random"
        yield _twelve(wanted + unknown + silent, labels, note)
        yield _thirty_five(clips, labels)


def _thirty_five(clips: ClassifiedClips, labels: tuple[str, ...]) -> ProtocolResult:
    possible = tuple(w for w in THIRTY_FIVE if w in labels)
    counted = clips.only(possible)
    missing = len(clips.only(THIRTY_FIVE).true) - len(counted.true)
    note = f"restricted to the {len(possible)} of 35 words that the model knows"
    if missing:
        note += f", without {missing} clips of other words"
    note += f"; {UNKNOWN}, {SILENCE} and any other class are errors"
    if absent := [w for w in THIRTY_FIVE if w not in clips.true]:
        note += f"; there are no clips of {', '.join(absent)}"
    classes = (*possible, *(label for label in labels if label not in possible))
    return _result("35", classes, counted, note, missing)


def _twelve(clips: ClassifiedClips, labels: tuple[str, ...], note: str) -> ProtocolResult:
    possible = tuple(w for w in TWELVE if w in labels)
    lacking = [w for w in TWELVE if w not in labels]
    counted = clips.only((SILENCE, UNKNOWN, *possible))
    others = [label for label in labels if label not in (SILENCE, UNKNOWN, *TWELVE)]
    predicted = tuple(UNKNOWN if p in others else p for p in counted.predicted)
    missing = len(clips.true) - len(counted.true)
    if lacking:
        note += (
            f"; the model does not know {' and '.join(lacking)}, so their {missing} clips are left out "
            f"({len(possible) + 2} of 12 classes)"
        )
    if others:
        note += f"; a prediction of the {len(others)} keywords outside the protocol counts as {UNKNOWN}"
    classified = ClassifiedClips(counted.true, predicted)
    return _result("12", (SILENCE, UNKNOWN, *possible), classified, note, missing)


def _result(
    protocol: str, classes: tuple[str, ...], clips: ClassifiedClips, note: str, left_out: int = 0
) -> ProtocolResult:
    index = {c: i for i, c in enumerate(classes)}
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    for (true, predicted), n in Counter(zip(clips.true, clips.predicted, strict=True)).items():
        confusion[index[true if true in index else UNKNOWN], index[predicted]] += n
    return ProtocolResult(protocol, classes, confusion, note, left_out)
