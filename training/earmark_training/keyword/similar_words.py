"""Confusables by pronunciation.

They are parts and neighbours of a keyword, rhymes, common words that contain it, two words that sound like it
together, and variants of it.
"""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from earmark_training.keyword.letters import is_letter
from earmark_training.keyword.misaki_spelling import TONES
from earmark_training.keyword.pronunciation import (
    STRESS,
    Phonemes,
    distance,
    is_vowel,
    joined,
    pronounce,
    strange_letters,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

_COMMON_WORDS = 20_000
_HOMOPHONE = 0.45
"""Words that differ by less sound like the keyword itself."""
_NEIGHBOURS, _RHYMES, _BEGINNINGS, _CONTAINING, _VARIANTS = 70, 15, 20, 20, 50
_PER_WORD = 15
_PAIRS, _PER_PART, _PAIRS_OF_WORD = 40, 15, 3
"""Of two words together: how many, from how many words for each part of the keyword, and with one of them."""
_MIN_PART = 2
_VOWELS = {
    "en": ("ɪ", "ɛ", "æ", "ʌ", "ʊ", "ə", "iː", "uː", "ɑː", "ɔː", "eɪ", "aɪ", "oʊ", "aʊ"),
    "ja": ("a", "i", "ɯ", "e", "o"),
    "zh": tuple(v + t for v in ("a", "i", "u", "y", "ɤ", "ə", "ai", "au", "ei", "ou") for t in TONES),
}
_CONSONANTS = {
    "en": tuple("p b t d k ɡ f v s z ʃ m n l ɹ w j h tʃ".split()),  # noqa: SIM905
    "ja": tuple("p b t d k ɡ s z ɕ ʥ ʨ ʦ h m n ɾ j".split()),  # noqa: SIM905
    "zh": tuple("p pʰ t tʰ k kʰ f s ʂ ɕ x m n l ʦ ʦʰ ʨ ʨʰ ꭧ ꭧʰ".split()),  # noqa: SIM905
}
"""What replaces a phoneme; in the languages that are not named, that of English."""


@dataclass(frozen=True, slots=True)
class CommonWord:
    """A word of a language's frequency list; `rank` counts from the most frequent one."""

    text: str
    phonemes: Phonemes
    rank: int


@functools.cache
def common_words(language: str) -> tuple[CommonWord, ...]:
    """Return the most frequent words of a language with their pronunciation."""
    from wordfreq import top_n_list

    frequent = top_n_list(language.split("-", maxsplit=1)[0], _COMMON_WORDS)
    texts = [
        w for w in frequent if len(w) > 1 and all(map(is_letter, w)) and not strange_letters(w, language)
    ]
    spoken = pronounce(texts, language)
    return tuple(
        CommonWord(text, words[0], rank)
        for rank, (text, words) in enumerate(zip(texts, spoken, strict=True))
        if len(words) == 1
    )


def bare(phonemes: Sequence[str]) -> Phonemes:
    """Return phonemes without stress marks."""
    return tuple(p.strip(STRESS) for p in phonemes)


def contains(whole: Sequence[str], part: Sequence[str]) -> bool:
    """Return whether the phonemes `part` occur in `whole` one after another, at any stress."""
    whole, part = bare(whole), bare(part)
    return any(whole[i : i + len(part)] == part for i in range(len(whole) - len(part) + 1))


def containing(keyword: str, phonemes: Phonemes, language: str) -> list[CommonWord]:
    """Return the common words that contain the keyword and more, without its own forms ("computers")."""
    return [
        w
        for w in common_words(language)
        if len(w.phonemes) > len(phonemes)
        and contains(w.phonemes, phonemes)
        and not w.text.startswith(keyword.lower())
    ]


def confusables(
    keyword: str, words: Sequence[Phonemes], language: str, *, seed: int
) -> list[tuple[Phonemes, ...]]:
    """Return confusables of a keyword, given as the phonemes of its words, each in the same form.

    None of them sounds like the keyword itself.
    """
    whole = joined(words)
    found: dict[tuple[Phonemes, ...], None] = {}
    for part in _parts(whole):
        found[(part,)] = None
    if len(words) == 1:
        found |= dict.fromkeys((w.phonemes,) for w in _similar(keyword, whole, language))
        found |= dict.fromkeys(_pairs(keyword, whole, language))
    else:
        found |= dict.fromkeys(_changed_phrases(words, language))
    found |= dict.fromkeys((v,) for v in _variants(whole, language, _VARIANTS, seed=seed))
    return [f for f in found if not sounds_like(words, f)]


def sounds_like(first: Sequence[Phonemes], second: Sequence[Phonemes]) -> bool:
    """Return whether two words or phrases, given as the phonemes of their words, sound like the same."""
    return distance(joined(first), joined(second)) <= _HOMOPHONE


def homophones(keyword: str, words: Sequence[Phonemes], language: str) -> frozenset[str]:
    """Return the common words that sound like a keyword in another spelling ("no" for "know").

    words: the phonemes of the keyword's words; a phrase has none.
    """
    if len(words) > 1:
        return frozenset()
    return frozenset(
        w.text
        for w in common_words(language)
        if w.text != keyword.lower() and sounds_like(words, [w.phonemes])
    )


def _other_words(keyword: str, language: str) -> list[CommonWord]:
    """Return the common words without the keyword and its forms ("computers")."""
    return [w for w in common_words(language) if not w.text.startswith(keyword.lower())]


def _similar(keyword: str, phonemes: Phonemes, language: str) -> list[CommonWord]:
    """Return neighbours, rhymes, words with the same beginning, and words that contain the keyword."""
    others = _other_words(keyword, language)
    near = sorted(others, key=lambda w: distance(phonemes, w.phonemes))[:_NEIGHBOURS]
    rhyme, start = _rhyme(phonemes), bare(phonemes)[:3]
    rhymes = [w for w in others if _rhyme(w.phonemes) == rhyme][:_RHYMES]
    beginnings = [w for w in others if bare(w.phonemes)[:3] == start][:_BEGINNINGS]
    return [*near, *rhymes, *beginnings, *containing(keyword, phonemes, language)[:_CONTAINING]]


def _pairs(keyword: str, phonemes: Phonemes, language: str) -> list[tuple[Phonemes, ...]]:
    """Return two common words that sound like the keyword together ("come Peter", "compute or").

    They are the nearest and most frequent ones, with few that share a word.
    """
    same, ranks = homophones(keyword, [phonemes], language), dict[Phonemes, int]()
    for word in _other_words(keyword, language):
        if word.text not in same:
            ranks.setdefault(word.phonemes, word.rank)

    def cost(part: Phonemes, word: Phonemes) -> float:
        return distance(part, word) + ranks[word] / _COMMON_WORDS

    found: dict[tuple[Phonemes, ...], float] = {}
    for cut in range(1, len(phonemes)):
        near = []
        for part in (phonemes[:cut], phonemes[cut:]):
            as_long = [w for w in ranks if abs(len(w) - len(part)) <= 2]  # others are not near
            near.append(sorted(as_long, key=functools.partial(cost, part))[:_PER_PART])
        for pair in itertools.product(*near):
            rank = max(ranks[word] for word in pair)
            found[pair] = distance(phonemes, joined(pair)) + rank / _COMMON_WORDS
    used: Counter[Phonemes] = Counter()
    chosen = []
    for pair in sorted(found, key=found.__getitem__):
        if all(used[word] < _PAIRS_OF_WORD for word in pair):
            used.update(pair)
            chosen.append(pair)
    return chosen[:_PAIRS]


def _rhyme(phonemes: Phonemes) -> Phonemes:
    """Return the phonemes from the last stressed vowel on."""
    stressed = [i for i, p in enumerate(phonemes) if p.startswith("ˈ")]
    return bare(phonemes[stressed[-1] :]) if stressed else bare(phonemes)


def _changed_phrases(phrase: Sequence[Phonemes], language: str) -> list[tuple[Phonemes, ...]]:
    """Return the phrase's words alone, and the phrase with one word replaced by its neighbours."""
    words = tuple(phrase)
    changed: list[tuple[Phonemes, ...]] = [(w,) for w in words]
    changed += [tuple(words[:i] + words[i + 1 :]) for i in range(len(words)) if len(words) > 2]
    for i, word in enumerate(words):
        near = sorted(common_words(language), key=lambda w: distance(word, w.phonemes))
        near = [w for w in near if distance(word, w.phonemes) > _HOMOPHONE][: 2 * _PER_WORD]
        changed += [(*words[:i], w.phonemes, *words[i + 1 :]) for w in near]
        changed += [(w.phonemes,) for w in near[:_PER_WORD]]
        # Any other word in its place.
        frequent = common_words(language)[50:2000]
        random = np.random.default_rng(i).choice(len(frequent), _PER_WORD, replace=False)
        changed += [(*words[:i], frequent[r].phonemes, *words[i + 1 :]) for r in random]
    return changed


def _parts(phonemes: Phonemes) -> list[Phonemes]:
    """Return the keyword's beginnings and ends, cut at every vowel."""
    vowels = [i for i, p in enumerate(phonemes) if is_vowel(p)]
    cuts = sorted({i + 1 for i in vowels[:-1]} | {max(0, i - 1) for i in vowels[1:]})
    pieces = itertools.chain((phonemes[:c] for c in cuts), (phonemes[c:] for c in cuts))
    return [p for p in pieces if _MIN_PART <= len(p) < len(phonemes) and p[0] != "ː"]


def _variants(phonemes: Phonemes, language: str, count: int, *, seed: int) -> list[Phonemes]:
    """Return up to `count` variants of the keyword with two or three phonemes replaced or left out."""
    rng = np.random.default_rng(seed)
    vowels, consonants = (of.get(language, of["en"]) for of in (_VOWELS, _CONSONANTS))
    made: dict[Phonemes, None] = {}
    for _ in range(count * 10):
        changed = list(phonemes)
        for _ in range(1 if len(phonemes) < 5 else int(rng.integers(2, 4))):
            i = int(rng.integers(len(changed)))
            if rng.random() < 0.15 and len(changed) > 3:
                del changed[i]
                continue
            stress = changed[i][: len(changed[i]) - len(changed[i].lstrip(STRESS))]
            choices = vowels if is_vowel(changed[i]) else consonants
            changed[i] = stress + choices[rng.integers(len(choices))]
        far = 0.8 if len(phonemes) < 5 else 2.0  # less may be an accent
        if distance(phonemes, changed) >= far and any(map(is_vowel, changed)):
            made[tuple(changed)] = None
        if len(made) == count:
            break
    return list(made)
