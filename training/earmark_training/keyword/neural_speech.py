"""The lines of neural voices: a keyword alone and in sentences, its confusables, and other sentences."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import soundfile

from earmark_training.data.corpus import SAMPLE_RATE_HZ
from earmark_training.keyword import sentences
from earmark_training.keyword.alignment import find_word
from earmark_training.keyword.kokoro import PAD_S, Line
from earmark_training.keyword.negatives import contains_any
from earmark_training.keyword.pronunciation import distance, joined, pronounce, spell
from earmark_training.keyword.similar_words import common_words, confusables, contains, sounds_like

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from pathlib import Path

    from earmark_audio.progress import Progress

    from earmark_training.keyword.kokoro import Reader
    from earmark_training.keyword.pronunciation import Phonemes

_ENDINGS = (".", "!", "", "?", ",")
_SPEED = (0.75, 1.4)
_ALONE, _BLENDED, _IN_SENTENCES = 108, 108, 54
KEYWORD_LINES = _ALONE + _BLENDED + _IN_SENTENCES
CONFUSABLE_LINES, OTHER_WORDS, SENTENCES = 300, 200, 120
_FIRST_OTHER, _LAST_OTHER = 100, 5_000
_SIMILAR = 1.0
_CARRIERS = {
    "en": (("and", ""), ("hey", ""), ("okay", ""), ("the", ""), ("", "please"), ("", "stop"),
           ("", "what is it"), ("", "turn on the light"), ("and", "please"), ("so", "can you")),
    "es": (("y", ""), ("el", ""), ("", "por favor"), ("y", "por favor")),
    "fr": (("et", ""), ("le", ""), ("", "s'il te plaît"), ("et", "s'il te plaît")),
    "it": (("e", ""), ("il", ""), ("", "per favore"), ("e", "per favore")),
    "pt": (("e", ""), ("o", ""), ("", "por favor"), ("e", "por favor")),
    "hi": (("और", ""), ("", "कृपया"), ("और", "कृपया")),
    "ja": (("ねえ", ""), ("じゃあ", ""), ("", "お願い"), ("", "今何時"), ("ねえ", "電気をつけて")),
    "zh": (("嘿", ""), ("请问", ""), ("", "打开灯"), ("", "现在几点"), ("嘿", "请等一下")),
}  # fmt: skip
"""Words before and after the keyword."""


@dataclass(frozen=True, slots=True)
class SpokenKeyword:
    """A file in which a voice says the keyword, and where, in samples at 16 kHz."""

    path: Path
    voice: str
    """Two voices, with a plus sign between them, for a blend."""
    word: tuple[int, int]


def read_keyword(
    reader: Reader,
    pronunciations: Sequence[Sequence[Phonemes]],
    language: str,
    *,
    keywords: Sequence[Sequence[Phonemes]],
    seed: int,
    progress: Progress,
    desc: str,
) -> list[SpokenKeyword]:
    """Read the keyword in all voices and in blends of them, alone and in sentences.

    The first of its pronunciations is read by every voice, the others in turn. The words around it make none
    of the `keywords`.
    """
    rng = np.random.default_rng(seed)
    first, *others = (spell(words) for words in pronunciations)
    texts = [first] * _ALONE + [others[i % len(others)] if others else first for i in range(_BLENDED)]
    alone = _lines(reader, rng, texts, blended_after=_ALONE)
    carriers = _carriers(language, pronunciations[0], keywords)
    inside = []
    for i in range(_IN_SENTENCES):
        before, after = map(spell, carriers[i % len(carriers)])
        model = alone[int(rng.integers(len(alone)))]
        text = model.phonemes.rstrip("".join(_ENDINGS))
        inside.append((model, replace(model, phonemes=f"{before} {text} {after}.".strip())))
    paths = reader.read([*alone, *(line for _, line in inside)], progress=progress, desc=desc)
    found = [
        SpokenKeyword(path, _voice(line), _extent(path)) for line, path in zip(alone, paths, strict=False)
    ]
    known = dict(zip(alone, paths, strict=False))
    for (model, line), path in zip(inside, paths[len(alone) :], strict=True):
        place = find_word(_read(known[model]), _read(path))
        if place is not None:
            found.append(SpokenKeyword(path, _voice(line), place))
    return found


def _carriers(
    language: str, keyword: Sequence[Phonemes], keywords: Sequence[Sequence[Phonemes]]
) -> list[tuple[list[Phonemes], list[Phonemes]]]:
    """Return words before and after a keyword that make no other one ("hey computer"), nor repeat it.

    All of them, if there are no such words.
    """
    texts = _CARRIERS[language.split("-", maxsplit=1)[0]]
    spoken = pronounce([text or "." for pair in texts for text in pair], language)
    carriers = list(zip(spoken[::2], spoken[1::2], strict=True))
    own, *others = map(joined, (keyword, *keywords))

    def is_fit(before: Sequence[Phonemes], after: Sequence[Phonemes]) -> bool:
        first, last = joined(before), joined(after)
        sentence = (*first, *own, *last)
        return not any(
            contains(first, part)
            or contains(last, part)
            or (len(part) > len(own) and contains(sentence, part))
            for part in others
        )

    return [pair for pair in carriers if is_fit(*pair)] or carriers


def read_confusables(
    reader: Reader,
    keyword: str,
    words: Sequence[Phonemes],
    language: str,
    *,
    keywords: Sequence[Sequence[Phonemes]],
    seed: int,
    progress: Progress,
    desc: str,
) -> list[tuple[tuple[Phonemes, ...], Path]]:
    """Read the keyword's confusables that are none of the `keywords`, each in at least two voices.

    Return the phonemes and the file of each.
    """
    found = confusables(keyword, words, language, seed=seed)
    others = [c for c in found if not any(sounds_like(c, k) for k in keywords)]
    if not others:
        return []
    rng = np.random.default_rng(seed + 1)
    chosen = [others[i % len(others)] for i in range(CONFUSABLE_LINES)]
    lines = _lines(reader, rng, [spell(c) for c in chosen], blended_after=len(chosen) // 2)
    return list(zip(chosen, reader.read(lines, progress=progress, desc=desc), strict=True))


def read_other_words(
    reader: Reader,
    pronunciations: Iterable[Sequence[Phonemes]],
    language: str,
    *,
    progress: Progress,
    desc: str,
) -> list[Path]:
    """Read common words that do not sound like the keywords, so that a synthetic voice alone is no keyword.

    They are the same for all keywords, so the cache has them from the second keyword on.
    """
    rng = np.random.default_rng(0)
    words = common_words(language)[_FIRST_OTHER:_LAST_OTHER]
    chosen = [words[i] for i in rng.choice(len(words), OTHER_WORDS, replace=False)]
    lines = _lines(reader, rng, [spell([w.phonemes]) for w in chosen], blended_after=OTHER_WORDS // 2)
    keywords = [joined(words) for words in pronunciations]
    lines = [
        line
        for line, word in zip(lines, chosen, strict=True)
        if all(distance(k, word.phonemes) > _SIMILAR for k in keywords)
    ]
    return reader.read(lines, progress=progress, desc=desc)


def read_sentences(
    reader: Reader,
    keywords: Sequence[str],
    *,
    homophones: Collection[str],
    seed: int,
    progress: Progress,
    desc: str,
) -> list[tuple[Path, str, str]]:
    """Read English sentences without the keywords and their homophones; return (file, text, voice)."""
    rng = np.random.default_rng(seed + 2)
    candidates = sentences.lines(2 * SENTENCES, seed=seed)
    texts = [t for t in candidates if not contains_any(t, keywords, homophones)][:SENTENCES]
    spoken = [f"{spell(words)}." for words in pronounce(texts, "en")]
    lines = _lines(reader, rng, spoken, blended_after=len(spoken))
    paths = reader.read(lines, progress=progress, desc=desc)
    return [(p, t, _voice(line)) for p, t, line in zip(paths, texts, lines, strict=True)]


def _lines(
    reader: Reader, rng: np.random.Generator, texts: Sequence[str], *, blended_after: int
) -> list[Line]:
    """Return a line for each text, in all voices in turn; later ones in blends of two."""
    voices = reader.voices
    order = [voices[i] for i in rng.permutation(len(voices))]
    lines = []
    for i, text in enumerate(texts):
        voice, other, share = order[i % len(order)], "", 1.0
        if i >= blended_after:
            other = str(rng.choice([v for v in voices if v != voice]))
            share = round(float(rng.uniform(0.3, 0.7)), 2)
        ending = "" if text.endswith(".") else _ENDINGS[i % len(_ENDINGS)]
        lines.append(Line(text + ending, voice, other, share, round(float(rng.uniform(*_SPEED)), 2)))
    return lines


def _voice(line: Line) -> str:
    return f"{line.voice}+{line.other}" if line.other else line.voice


def _read(path: Path) -> np.ndarray:
    return np.asarray(soundfile.read(path, dtype="float32")[0], np.float32)


def _extent(path: Path) -> tuple[int, int]:
    """Return where a line that was read starts and ends: the silence around it is exact."""
    pad = int(PAD_S * SAMPLE_RATE_HZ)
    return pad, soundfile.info(path).frames - pad
