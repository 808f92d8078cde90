"""Pronunciations: the phonemes of words in IPA, as eSpeak NG writes them, and how much two of them differ.

Those of Japanese and Mandarin are written in misaki's symbols.
"""

from __future__ import annotations

import functools
import logging
import re
import unicodedata
from itertools import chain
from typing import TYPE_CHECKING

from earmark_audio.extras import install_command

from earmark_training.keyword.letters import is_letter
from earmark_training.keyword.misaki_spelling import TONES, misaki_spelling
from earmark_training.keyword.voice_files import SynthesisError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

Phonemes = tuple[str, ...]
"""The phonemes of a word; a stress mark stands before its vowel."""

LANGUAGES = {
    "en": "en-us", "en-us": "en-us", "en-gb": "en-gb", "es": "es", "fr": "fr-fr", "it": "it",
    "pt": "pt-br", "pt-br": "pt-br", "hi": "hi",
}  # fmt: skip
"""The languages that Kokoro's voices read and eSpeak NG spells, with eSpeak NG's code."""

_SPELLED_BY_MISAKI = ("ja", "zh")

_ACCENTS = {"en": ("en-us", "en-gb", "en-gb-scotland", "en-029")}
"""Accents that a keyword is read in besides that of its language, in eSpeak NG's codes."""

STRESS = "ˈˌ"
_VOWELS = frozenset("aeiouyæɑɐɒɔəɘɚɛɜɝɞɨɪɯɵøœɶʉʊʌʏᵻɤ")
_ALIKE = tuple(
    map(
        frozenset, ("pb", "td", "kɡg", "fv", "sz", "ʃʒ", "θð", "mn", "nŋ", "lɹ", "lw", "bv", "sʃ", "tθ", "dð")
    )
)
_READ_AS = str.maketrans({"ʉ": "u", "ʍ": "w", ":": "ː", "\u032a": "", "-": ""})
"""What eSpeak NG writes and Kokoro's alphabet lacks, and what is nearest to it."""
_IN_DICTIONARIES = str.maketrans({".": "", "\u0361": "", "\u035c": "", "ʧ": "tʃ", "ʤ": "dʒ"})
"""Borders of syllables, ties and ligatures, which eSpeak NG does not write, and what it writes instead."""
_GAP = 0.8
_OTHER_TONE = 0.5  # another word, and not another accent
_MAX_PHONEMES = 24  # 1.8 s, the receptive field
_MARKS = "ːˑʰʲʷⁿ\u0303\u0329\u032f\u02de"
_NO_VOWEL_NEXT = f"(?![{STRESS}]*[{''.join(_VOWELS)}])"
_DIPHTHONGS = "[aeɔouɛ]ɪ|[aoəeɛi]ʊ|ɐ\u0303ʊ\u0303|[ieʊ]ə"
_ENGLISH_VOWELS = rf"aɪɚ|aɪə(?!l)|(?:ɔː|ɑː|[ɛɪʊ])ɹ{_NO_VOWEL_NEXT}|(?<![{STRESS}])əl{_NO_VOWEL_NEXT}"


def _phoneme(several_symbols: str) -> re.Pattern[str]:
    """Return a pattern of one phoneme with its stress and marks; it knows those of several symbols."""
    return re.compile(rf"[{STRESS}]*(?:{several_symbols}|{_DIPHTHONGS}|[^\W\d_])[{_MARKS}]*")


# What eSpeak NG counts as one phoneme: with these, 99% of common words are parsed as it divides them.
_PHONEMES = {
    "en": _phoneme(rf"tʃ|dʒ|{_ENGLISH_VOWELS}"),
    # The second half of a long vowel is a phoneme of its own: another length is another word.
    "ja": re.compile(r"[^\W\d_ːʲᵝ][ʲᵝ\u0300-\u036f]*|ː"),
    "zh": re.compile(rf"(?:[aeo][iu]|[^\W\d_ʰ])[ʰ{TONES}\u0300-\u036f]*"),
}
_OTHER_PHONEME = _phoneme("t[ʃsɕ]|d[ʒzʑ]|ss")
_IPA = "Use IPA as eSpeak NG writes it, such as kəmpjˈuːɾɚ for computer"
_SYMBOLS = {
    "ja": "Use misaki's symbols, such as deŋkʲi for 電気",
    "zh": "Use misaki's symbols, such as ni↓xau↓ for 你好",
}
_LATIN = ("LATIN ", "COMBINING ", "ZERO WIDTH ")
_HANZI = ("CJK UNIFIED ", "CJK COMPATIBILITY ", "IDEOGRAPHIC ITERATION ")
_LETTERS = {
    "hi": (*_LATIN, "DEVANAGARI "),
    "ja": (*_HANZI, "HIRAGANA ", "KATAKANA", "HALFWIDTH KATAKANA"),
    "zh": _HANZI,
}
"""How the names of a language's letters begin in Unicode; those of the others are Latin."""


def is_vowel(phoneme: str) -> bool:
    """Return whether a phoneme is a vowel."""
    return phoneme.lstrip(STRESS)[:1] in _VOWELS


def accents(keyword: str, language: str) -> list[list[Phonemes]]:
    """Return the different pronunciations of a keyword's words in the accents of a language.

    A flapped t, as in American English, is also a plain one.
    """
    spoken = [_phonemes([keyword], code)[0] for code in _ACCENTS.get(language.split("-", maxsplit=1)[0], ())]
    spoken += [[tuple(p.replace("ɾ", "t") for p in word) for word in words] for words in spoken]
    return list({spell(words): words for words in spoken}.values())


def pronounce(texts: Sequence[str], language: str) -> list[list[Phonemes]]:
    """Return the phonemes of each text's words, as eSpeak NG or misaki says them.

    Raises SynthesisError if they do not know the language, or a package is missing.
    """
    if language in _SPELLED_BY_MISAKI:
        return [_divided(text, language) for text in misaki_spelling(texts, language)]
    if language not in LANGUAGES:
        raise SynthesisError(
            f"no neural voice reads {language!r}: --voices is for "
            f"{', '.join((*LANGUAGES, *_SPELLED_BY_MISAKI))}. For German and other languages, use "
            "recordings, and --synthesize"
        )
    return _phonemes(texts, LANGUAGES[language])


def _phonemes(texts: Sequence[str], code: str) -> list[list[Phonemes]]:
    try:
        import espeakng_loader
        from phonemizer.backend import EspeakBackend
        from phonemizer.backend.espeak.wrapper import EspeakWrapper
        from phonemizer.separator import Separator
    except ImportError as error:
        raise SynthesisError(
            f"--voices needs packages that are missing: {install_command('voices')}"
        ) from error
    EspeakWrapper.set_data_path(espeakng_loader.get_data_path())
    EspeakWrapper.set_library(espeakng_loader.get_library_path())
    logger = logging.getLogger("earmark.phonemizer")
    logger.setLevel(logging.ERROR)
    backend = EspeakBackend(code, with_stress=True, language_switch="remove-flags", logger=logger)
    lines = backend.phonemize(list(texts), Separator(phone="_", word=" "), strip=True)
    # In Hindi, eSpeak NG writes r. for ɽ; the voices would pause at the dot.
    lines = [_for_voices(line.replace("r.", "ɽ"), between="_") for line in lines]
    return [
        [word for w in line.split() if (word := tuple(p for p in w.split("_") if p.strip(STRESS)))]
        for line in lines
    ]


def _for_voices(ipa: str, *, between: str) -> str:
    """Return IPA without what eSpeak NG writes and Kokoro's alphabet lacks; `between` separates phonemes.

    A syllabic consonant (*button*) gets a vowel; the marks of a dental consonant and of a French mute e go.
    """
    return re.sub("([^\\W\\d_])\u0329", rf"ə{between}\1", ipa.translate(_READ_AS))


def parse(pronunciation: str, language: str) -> list[Phonemes]:
    """Return the phonemes of the words of a pronunciation in IPA, such as `kəmpjˈuːɾɚ`, in any Unicode form.

    It is divided into phonemes as `pronounce` divides words of the language. Raises SynthesisError for a
    symbol that is none of IPA's.
    """
    # A tilde is a symbol of its own, a cedilla is not; IPA's ɡ is often written as the letter g.
    symbols = unicodedata.normalize("NFD", pronunciation).replace("c\u0327", "ç").replace("g", "ɡ")
    text = _for_voices(symbols.translate(_IN_DICTIONARIES), between="").strip().strip("/[]")
    rest = _phoneme_pattern(language).sub("", "".join(text.split()))
    strange = [c if c.isprintable() else repr(c) for c in rest]
    if strange:
        raise SynthesisError(
            f"the pronunciation {pronunciation!r} has symbols that are not IPA: {' '.join(strange)}. "
            f"{_SYMBOLS.get(language, _IPA)}"
        )
    return _divided(text, language)


def _divided(text: str, language: str) -> list[Phonemes]:
    """Return the phonemes of words, without the other symbols."""
    phoneme = _phoneme_pattern(language)
    # A stress mark is a symbol of its own if no other one follows it.
    words = (tuple(p for p in phoneme.findall(word) if p.strip(STRESS)) for word in text.split())
    return [word for word in words if word]


def _phoneme_pattern(language: str) -> re.Pattern[str]:
    return _PHONEMES.get(language.split("-", maxsplit=1)[0], _OTHER_PHONEME)


def strange_letters(text: str, language: str) -> list[str]:
    """Return the letters of a text that are not those of a language."""
    known = _LETTERS.get(language, _LATIN)
    return sorted({c for c in text if is_letter(c) and not unicodedata.name(c, "").startswith(known)})


def check_letters(keyword: str, language: str) -> None:
    """Raise SynthesisError if a keyword has letters that eSpeak NG would name: 你 is a "Chinese letter"."""
    strange = strange_letters(keyword, language)
    if strange:
        raise SynthesisError(
            f"{keyword!r} has letters that are not those of the language {language!r}: {' '.join(strange)}. "
            "Write it in the letters of this language, name another one with --language, or give its "
            "pronunciation with --pronunciation"
        )


def check_pronunciation(
    keyword: str, words: Sequence[Phonemes], language: str, unknown_symbols: Callable[[str], list[str]]
) -> None:
    """Raise SynthesisError if a keyword's phonemes are none, too many, or not all in an alphabet."""
    text = spell(words)
    unknown = unknown_symbols(text)
    if unknown:
        raise SynthesisError(
            f"the pronunciation of {keyword!r}, {text!r}, has symbols that the voices do not know: "
            f"{' '.join(unknown)}. Give it with --pronunciation. {_SYMBOLS.get(language, _IPA)}"
        )
    phonemes = joined(words)
    if not any(map(is_vowel, phonemes)):
        raise SynthesisError(
            f"the pronunciation of {keyword!r} has no vowel: {text!r}. Give it with --pronunciation. "
            f"{_SYMBOLS.get(language, _IPA)}"
        )
    if len(phonemes) > _MAX_PHONEMES:
        raise SynthesisError(
            f"{keyword!r} has {len(phonemes)} phonemes and lasts longer than the audio that a score depends "
            f"on: choose one of at most {_MAX_PHONEMES}"
        )


def joined(words: Iterable[Phonemes]) -> Phonemes:
    """Return the phonemes of all words, one word after the other."""
    return tuple(chain.from_iterable(words))


def spell(words: Sequence[Phonemes]) -> str:
    """Return the phonemes of words as a text for the synthesizer."""
    return " ".join("".join(word) for word in words)


@functools.cache
def _cost(first: str, second: str) -> float:
    """Return the cost of one phoneme in the place of another: 0 for the same, 1 for a very different one."""
    a, b = (p.strip(STRESS + "ː˞") for p in (first, second))
    if a == b:
        return 0.0
    if is_vowel(a) and is_vowel(b):
        one, other = a.rstrip(TONES), b.rstrip(TONES)
        tone = 0.0 if a[len(one) :] == b[len(other) :] else _OTHER_TONE
        return tone + (0.0 if one == other else 0.3 if a[:1] == b[:1] else 0.5)
    return 0.4 if any({a, b} <= pair for pair in _ALIKE) else 1.0


def distance(first: Sequence[str], second: Sequence[str]) -> float:
    """Return the edit distance of two words in phonemes, in which similar phonemes cost less."""
    row = [_GAP * j for j in range(len(second) + 1)]
    for a in first:
        diagonal, row[0] = row[0], row[0] + _GAP
        for j, b in enumerate(second, 1):
            best = min(diagonal + _cost(a, b), row[j] + _GAP, row[j - 1] + _GAP)
            diagonal, row[j] = row[j], best
    return row[-1]
