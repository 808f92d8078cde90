"""The training set of a keyword: its recordings, synthesized words, and speech without the keyword."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from earmark_training.data.corpus import SAMPLE_RATE_HZ, SourceFile, decode, hours
from earmark_training.keyword import confusables, sentences
from earmark_training.keyword.negatives import contains_keyword
from earmark_training.keyword.synthesis import available_voices, phonemes, synthesize

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from earmark_training.data.corpus import Corpus, Recording

SYNTHESIZED, CONFUSABLE = "the keyword, synthesized", "a confusable, synthesized"
"""The text of synthesized clips in the corpus; recordings of people have the keyword itself."""

_SYNTHESIZED_KEYWORDS = 240
_SYNTHESIZED_CONFUSABLES = 240  # of at most half as many different words
_SYNTHESIZED_LINES = 600  # about 45 minutes
_HELD_OUT_SHARE = 0.3
_MIN_SPEAKERS = 6
_PIECE_S = 30


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """Recordings by their role, all in one corpus.

    `recordings` are the recordings of the keyword with the place of the word, `synthesized` the same by
    synthesizers, `confusables` synthesized words that sound like it, and `speech` other speech. `held_out` is
    speech that is not trained on: the threshold is chosen on it.
    """

    corpus: Corpus
    recordings: tuple[Recording, ...]
    synthesized: tuple[Recording, ...]
    confusables: tuple[Recording, ...]
    speech: tuple[Recording, ...]
    held_out: tuple[Recording, ...]

    def without(self, left_out: Iterable[int]) -> TrainingSet:
        """Return the training set without the recordings of the keyword at these indices."""
        excluded = set(left_out)
        kept = tuple(r for i, r in enumerate(self.recordings) if i not in excluded)
        return replace(self, recordings=kept)

    @property
    def held_out_hours(self) -> float:
        """The length of the held-out speech."""
        return hours(self.held_out)


def collect(
    keyword: str,
    recordings: Sequence[Path],
    negatives: Sequence[SourceFile],
    folder: Path,
    *,
    language: str | None,
    seed: int,
    progress: Callable[..., Any] = tqdm,
) -> TrainingSet:
    """Decode the recordings and the negatives, and synthesize the rest, into `folder`.

    With a `language`, synthesizers speak the keyword and its confusables in that language; None uses no
    synthesizer. Without negatives, synthesizers read English text as speech without the keyword.

    Raises SynthesisError if no synthesizer speaks the language, and CorpusError for a damaged negative.
    """
    parts = [[SourceFile(path, "clip", "training", keyword) for path in recordings], [], [], list(negatives)]
    if language:
        parts[1] = _synthesize_keyword(keyword, folder / "keyword", language, seed, progress)
        parts[2] = _synthesize_confusables(keyword, folder / "confusables", language, seed, progress)
    if not negatives:
        parts[3] = _synthesize_speech(keyword, folder / "speech", seed, progress)
    corpus = decode([file for part in parts for file in part], folder / "corpus", progress=progress)
    position, decoded = 0, []
    for part in parts:
        decoded.append(corpus.recordings[position : position + len(part)])
        position += len(part)
    # A word that energy does not locate cannot be learned from.
    words = [tuple(r for r in part if r.word is not None) for part in decoded[:3]]
    speech, held_out = hold_out(cut_into_pieces(decoded[3]), seed)
    return TrainingSet(corpus, words[0], words[1], words[2], tuple(speech), tuple(held_out))


def _synthesize_keyword(
    keyword: str, folder: Path, language: str, seed: int, progress: Callable[..., Any]
) -> list[SourceFile]:
    voices = available_voices(language, _SYNTHESIZED_KEYWORDS, seed=seed)
    paths = synthesize([(v, keyword) for v in voices], folder, progress=progress)
    return [SourceFile(p, "clip", "training", SYNTHESIZED) for p in paths]


def _synthesize_confusables(
    keyword: str, folder: Path, language: str, seed: int, progress: Callable[..., Any]
) -> list[SourceFile]:
    candidates = available_voices(language, 3 * _SYNTHESIZED_CONFUSABLES, seed=seed + 1)
    voices = [v for v in candidates if v.accepts_phonemes]
    words = phonemes(keyword, language)
    texts = confusables.parts(words)
    texts += confusables.variants(words, max(0, _SYNTHESIZED_CONFUSABLES // 2 - len(texts)), seed=seed)
    if not voices or not texts:
        return []
    lines = [(voices[i % len(voices)], texts[i % len(texts)]) for i in range(_SYNTHESIZED_CONFUSABLES)]
    paths = synthesize(lines, folder, progress=progress)
    return [SourceFile(p, "clip", "training", CONFUSABLE) for p in paths]


def _synthesize_speech(
    keyword: str, folder: Path, seed: int, progress: Callable[..., Any]
) -> list[SourceFile]:
    voices = available_voices("en", _SYNTHESIZED_LINES, seed=seed + 2)
    candidates = sentences.lines(2 * _SYNTHESIZED_LINES, seed=seed)
    texts = [text for text in candidates if not contains_keyword(text, keyword)]
    lines = list(zip(voices, texts, strict=False))
    paths = synthesize(lines, folder, progress=progress)
    return [
        SourceFile(path, "speech", "training", text, voice.name)
        for path, (voice, text) in zip(paths, lines, strict=True)
    ]


def cut_into_pieces(recordings: Iterable[Recording]) -> list[Recording]:
    """Cut recordings into pieces of at most half a minute, which are scored one at a time."""
    length = _PIECE_S * SAMPLE_RATE_HZ
    return [
        replace(r, start=r.start + offset, length=min(length, r.length - offset))
        for r in recordings
        for offset in range(0, r.length, length)
    ]


def hold_out(recordings: Sequence[Recording], seed: int) -> tuple[list[Recording], list[Recording]]:
    """Split recordings at random into a training part and a held-out part of three tenths.

    If there are several speakers, all recordings of a speaker are in the same part.
    """
    groups: dict[str, list[Recording]] = defaultdict(list)
    for recording in recordings:
        groups[recording.speaker].append(recording)
    if len(groups) < _MIN_SPEAKERS:
        groups = {f"{r.start:015d}": [r] for r in recordings}
    names = sorted(groups)
    training: list[Recording] = []
    held_out: list[Recording] = []
    for i in np.random.default_rng(seed).permutation(len(names)):
        enough = hours(held_out) >= _HELD_OUT_SHARE * hours(recordings)
        (training if enough else held_out).extend(groups[names[i]])
    return training, held_out


def folds(count: int, parts: int, seed: int) -> list[tuple[int, ...]]:
    """Split the indices 0 to count - 1 at random into `parts` of nearly equal size."""
    order = np.random.default_rng(seed).permutation(count)
    return [tuple(sorted(order[i::parts].tolist())) for i in range(parts)]
