"""Words that sound like a keyword, derived from how a synthesizer says it: no dictionary is needed.

Parts of it ("comp", "puter"), and the whole of it with some sounds exchanged, left out or swapped. What
they are written in is eSpeak NG's notation, which it reads back between double brackets; the bars tell
sounds apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

_VOWELS = ("a", "A:", "i:", "I", "E", "O:", "0", "u:", "U", "V", "aI", "eI", "oU", "aU", "OI", "3:")
_CONSONANTS = ("p", "b", "t", "d", "k", "g", "f", "v", "s", "z", "S", "m", "n", "l", "r", "w", "j", "h", "tS")
_LEAST = 2  # sounds in a part


def is_vowel(phoneme: str) -> bool:
    """Say whether a sound of eSpeak NG's notation is a vowel."""
    return phoneme.lstrip("',")[:1] in "aeiouAEIOUV03@&yY"


def parts(words: Sequence[Sequence[str]]) -> list[str]:
    """Return the keyword's beginnings and ends, cut at every vowel, as texts for eSpeak NG."""
    sounds = [p for word in words for p in word]
    vowels = [i for i, p in enumerate(sounds) if is_vowel(p)]
    cuts = {i + 1 for i in vowels[:-1]} | {max(0, i - 1) for i in vowels[1:]}
    found = [sounds[:c] for c in sorted(cuts)] + [sounds[c:] for c in sorted(cuts)]
    return list(dict.fromkeys(_text(f) for f in found if _LEAST <= len(f) < len(sounds)))


def neighbours(words: Sequence[Sequence[str]], count: int, *, seed: int) -> list[str]:
    """Return words a few sounds away from the keyword, as texts for eSpeak NG, all different.

    A word of five sounds or more is changed in two places at least: closer than that, an accent may be.
    """
    rng = np.random.default_rng(seed)
    sounds = [p for word in words for p in word]
    if len(sounds) < _LEAST:
        return []
    changes = 1 if len(sounds) < 5 else 2
    found: dict[str, None] = {}
    for _ in range(count * 20):
        if len(found) >= count:
            break
        changed = list(sounds)
        for _ in range(changes + int(rng.random() < 0.3)):
            changed = _change(rng, changed)
        if changed != sounds and any(map(is_vowel, changed)):
            found[_text(changed)] = None
    return list(found)


def _change(rng: np.random.Generator, sounds: list[str]) -> list[str]:
    """Exchange a sound for another of its kind (mostly), leave one out, or put one in."""
    at = int(rng.integers(len(sounds)))
    kind = rng.random()
    if kind < 0.15 and len(sounds) > 3:
        return sounds[:at] + sounds[at + 1 :]
    if kind < 0.25:
        return [*sounds[:at], _CONSONANTS[rng.integers(len(_CONSONANTS))], *sounds[at:]]
    old = sounds[at]
    stress = old[: len(old) - len(old.lstrip("',"))]
    choices = _VOWELS if is_vowel(old) else _CONSONANTS
    new = choices[rng.integers(len(choices))]
    return [*sounds[:at], stress + new, *sounds[at + 1 :]]


def _text(sounds: Sequence[str]) -> str:
    """Write sounds as eSpeak NG reads them; one of them has to be stressed, or it mumbles."""
    if not any(s.startswith("'") for s in sounds):
        stressed = next((i for i, s in enumerate(sounds) if is_vowel(s)), None)
        sounds = [f"'{s.lstrip(',')}" if i == stressed else s for i, s in enumerate(sounds)]
    return f"[[{'|'.join(sounds)}]]"
