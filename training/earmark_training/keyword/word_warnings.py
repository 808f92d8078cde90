"""Warnings about keywords that are short, part of common words, or like or part of another keyword."""

from __future__ import annotations

import itertools
import logging
from typing import TYPE_CHECKING

from earmark_training.keyword.negatives import normalize
from earmark_training.keyword.pronunciation import distance, joined, pronounce, spell
from earmark_training.keyword.similar_words import common_words, containing, contains

if TYPE_CHECKING:
    from collections.abc import Sequence

    from earmark_spotter.metadata import ModelMetadata

    from earmark_training.keyword.training_set import NeuralVoices

log = logging.getLogger(__name__)

_SHORT = 4
_COMMON_RANK = 5_000
_NAMED = 4
_ALIKE = 0.25
"""The distance of two words per phoneme, below which they are likely to be confused."""


def warn_about(keywords: Sequence[str], voices: NeuralVoices | None, base: ModelMetadata) -> None:
    """Log how voices read the keywords, and what is to be expected of those that are hard to spot."""
    if voices is not None:
        for keyword, words in voices.pronunciations.items():
            log.info("%r is read as %s: if that is wrong, use --pronunciation", keyword, spell(words))
    for warning in word_warnings(keywords, voices, base):
        log.warning("%s", warning)


def word_warnings(keywords: Sequence[str], voices: NeuralVoices | None, base: ModelMetadata) -> list[str]:
    """Return the warnings, one for each keyword and reason.

    Without voices the pronunciations are not known: then only the spelling says that one is part of another.
    """
    warnings = []
    spoken = {} if voices is None else {k: joined(words) for k, words in voices.pronunciations.items()}
    for one, other in itertools.combinations(keywords, 2):
        short, long = sorted((one, other), key=lambda k: len(spoken[k] if spoken else k))
        if _has_words(long, short) or (
            contains(spoken[long], spoken[short]) if spoken else normalize(short) in normalize(long)
        ):
            warnings.append(
                f"{short!r} is part of {long!r}: expect both to be detected when {long!r} is spoken. Choose "
                "another word, or ignore the shorter one there"
            )
        elif spoken and _are_alike(spoken[one], spoken[other]):
            warnings.append(f"{one!r} sounds like {other!r}: expect that one is detected as the other")
    if voices is None:
        return warnings
    for keyword, words in voices.pronunciations.items():
        phonemes = spoken[keyword]
        if len(phonemes) < _SHORT:
            warnings.append(
                f"{keyword!r} is short ({len(phonemes)} phonemes): expect more misses and more false alarms "
                "than from a word of three syllables. Put a word before it, as in "
                f"'hey {keyword}', or choose a longer one"
            )
        if len(words) == 1:
            found = [w.text for w in containing(keyword, phonemes, voices.language) if w.rank < _COMMON_RANK][
                :_NAMED
            ]
            same = [
                w.text
                for w in common_words(voices.language)
                if w.rank < _COMMON_RANK and w.text != keyword.lower() and distance(phonemes, w.phonemes) == 0
            ]
            if found:
                warnings.append(
                    f"{keyword!r} is part of common words ({', '.join(found)}): expect false alarms in them"
                )
            if same:
                warnings.append(
                    f"{keyword!r} sounds like {', '.join(same)}: expect false alarms at these words"
                )
        if voices.language.startswith("en"):
            known = [k for k in base.keyword_names if k != keyword]
            for name, known_words in zip(known, pronounce(known, voices.language), strict=True):
                is_alike = _are_alike(phonemes, joined(known_words))
                if is_alike or _has_words(keyword, name):
                    warnings.append(
                        f"{keyword!r} {'sounds like' if is_alike else 'contains'} {name!r}, a keyword of "
                        f"{base.name}: a client that uses both models will get both"
                    )
    return warnings


def _has_words(phrase: str, part: str) -> bool:
    """Return whether a phrase has the words of another one, as they are spelled."""
    return f" {normalize(part)} " in f" {normalize(phrase)} "


def _are_alike(first: Sequence[str], second: Sequence[str]) -> bool:
    """Return whether two words, given as phonemes, are likely to be confused."""
    return distance(first, second) <= _ALIKE * max(len(first), len(second))
