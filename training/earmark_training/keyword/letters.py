"""The characters of written words."""

from __future__ import annotations

import unicodedata

_JOINERS = "\u200c\u200d"


def is_letter(character: str) -> bool:
    """Return whether a character is a part of a written word.

    This includes marks, such as the vowel signs of Devanagari, and the joiners without a width.
    """
    return unicodedata.category(character)[0] in "LM" or character in _JOINERS
