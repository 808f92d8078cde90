"""Confusables: words that sound like a keyword, derived from its phonemes without a dictionary.

They are parts of the keyword ("comp", "puter"), and variants of it with some phonemes replaced, left out or
inserted. They are written in eSpeak NG's notation: phonemes separated by bars, in double brackets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

_VOWELS = ("a", "A:", "i:", "I", "E", "O:", "0", "u:", "U", "V", "aI", "eI", "oU", "aU", "OI", "3:")
_CONSONANTS = ("p", "b", "t", "d", "k", "g", "f", "v", "s", "z", "S", "m", "n", "l", "r", "w", "j", "h", "tS")
_MIN_PHONEMES = 2


def is_vowel(phoneme: str) -> bool:
    """Return whether a phoneme in eSpeak NG's notation is a vowel."""
    return phoneme.lstrip("',")[:1] in "aeiouAEIOUV03@&yY"


def parts(words: Sequence[Sequence[str]]) -> list[str]:
    """Return the keyword's beginnings and ends, cut at every vowel, as texts for eSpeak NG.

    `words` are the phonemes of each of the keyword's words, as `synthesis.phonemes` returns them.
    """
    phonemes = [p for word in words for p in word]
    vowels = [i for i, p in enumerate(phonemes) if is_vowel(p)]
    cuts = {i + 1 for i in vowels[:-1]} | {max(0, i - 1) for i in vowels[1:]}
    pieces = [phonemes[:c] for c in sorted(cuts)] + [phonemes[c:] for c in sorted(cuts)]
    return list(dict.fromkeys(_text(p) for p in pieces if _MIN_PHONEMES <= len(p) < len(phonemes)))


def variants(words: Sequence[Sequence[str]], count: int, *, seed: int) -> list[str]:
    """Return up to `count` different variants of the keyword, as texts for eSpeak NG.

    A keyword of five phonemes or more is changed in at least two places, since a smaller difference may be an
    accent. `words` are as for `parts`.
    """
    rng = np.random.default_rng(seed)
    phonemes = [p for word in words for p in word]
    if len(phonemes) < _MIN_PHONEMES:
        return []
    changes = 1 if len(phonemes) < 5 else 2
    texts: dict[str, None] = {}
    for _ in range(count * 20):
        if len(texts) >= count:
            break
        changed = list(phonemes)
        for _ in range(changes + int(rng.random() < 0.3)):
            changed = _change(rng, changed)
        if changed != phonemes and any(map(is_vowel, changed)):
            texts[_text(changed)] = None
    return list(texts)


def _change(rng: np.random.Generator, phonemes: list[str]) -> list[str]:
    """Replace a phoneme by another of its kind (in most cases), leave one out, or insert one."""
    index = int(rng.integers(len(phonemes)))
    kind = rng.random()
    if kind < 0.15 and len(phonemes) > 3:
        return phonemes[:index] + phonemes[index + 1 :]
    if kind < 0.25:
        return [*phonemes[:index], _CONSONANTS[rng.integers(len(_CONSONANTS))], *phonemes[index:]]
    old = phonemes[index]
    stress = old[: len(old) - len(old.lstrip("',"))]
    choices = _VOWELS if is_vowel(old) else _CONSONANTS
    new = choices[rng.integers(len(choices))]
    return [*phonemes[:index], stress + new, *phonemes[index + 1 :]]


def _text(phonemes: Sequence[str]) -> str:
    """Return phonemes as a text for eSpeak NG, with a stress added if there is none: it mumbles without."""
    if not any(p.startswith("'") for p in phonemes):
        stressed = next((i for i, p in enumerate(phonemes) if is_vowel(p)), None)
        phonemes = [f"'{p.lstrip(',')}" if i == stressed else p for i, p in enumerate(phonemes)]
    return f"[[{'|'.join(phonemes)}]]"
