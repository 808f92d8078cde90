"""Warnings about keywords that are short, part of common words, or like another keyword."""

from __future__ import annotations

import itertools
import logging
from typing import TYPE_CHECKING

from earmark_training.keyword.pronunciation import distance, joined, pronounce, spell
from earmark_training.keyword.similar_words import common_words, containing

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


def warn_about(voices: NeuralVoices, base: ModelMetadata) -> None:
    """Log how the keywords are read, and what is to be expected of those that are hard to spot."""
    for keyword, words in voices.pronunciations.items():
        log.info("%r is read as %s: if that is wrong, use --pronunciation", keyword, spell(words))
    for warning in word_warnings(voices, base):
        log.warning("%s", warning)


def word_warnings(voices: NeuralVoices, base: ModelMetadata) -> list[str]:
    """Return the warnings, one for each keyword and reason."""
    warnings = []
    for (one, first), (other, second) in itertools.combinations(voices.pronunciations.items(), 2):
        if _are_alike(joined(first), joined(second)):
            warnings.append(f"{one!r} sounds like {other!r}: expect that one is detected as the other")
    for keyword, words in voices.pronunciations.items():
        phonemes = joined(words)
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
            for name, spoken in zip(known, pronounce(known, voices.language), strict=True):
                if _are_alike(phonemes, joined(spoken)):
                    warnings.append(
                        f"{keyword!r} sounds like {name!r}, a keyword of {base.name}: a client that uses "
                        "both models will get both"
                    )
    return warnings


def _are_alike(first: Sequence[str], second: Sequence[str]) -> bool:
    """Return whether two words, given as phonemes, are likely to be confused."""
    return distance(first, second) <= _ALIKE * max(len(first), len(second))
