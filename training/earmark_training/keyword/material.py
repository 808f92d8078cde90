"""What a keyword is tuned on: recordings of it, what sounds like it, and speech that does not hold it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from earmark_training.data.corpus import SAMPLE_RATE_HZ, SourceFile, decode, hours
from earmark_training.keyword import confusables, sentences
from earmark_training.keyword.negatives import holds
from earmark_training.keyword.synthesis import available_voices, phonemes, speak

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from earmark_training.data.corpus import Corpus, Recording

VOICE, LOOKALIKE = "the keyword, synthesized", "like the keyword, synthesized"
"""The text of synthesized clips in the corpus, where recordings of people have the keyword itself."""

_VOICES = 240  # synthesized keywords
_LOOKALIKES = 240  # synthesized words that sound like it, of half as many different ones
_READ_LINES = 600  # about three quarters of an hour
_HELD_OUT_SHARE = 0.3
_MANY_SPEAKERS = 6
_PIECE_S = 30


@dataclass(frozen=True, slots=True)
class Material:
    """Recordings by their role, all in one corpus.

    `takes` are the recordings of the keyword, each with the place of the word; `voices` the keyword by
    synthesizers; `lookalikes` synthesized words that sound like it; `speech` what else is said.
    `held_out` is speech that is never trained on: the threshold comes from it.
    """

    corpus: Corpus
    takes: tuple[Recording, ...]
    voices: tuple[Recording, ...]
    lookalikes: tuple[Recording, ...]
    speech: tuple[Recording, ...]
    held_out: tuple[Recording, ...]

    def without(self, left_out: Iterable[int]) -> Material:
        """Return the same with the takes of these numbers left out."""
        gone = set(left_out)
        return replace(self, takes=tuple(t for i, t in enumerate(self.takes) if i not in gone))

    @property
    def held_out_hours(self) -> float:
        """How much speech there is to choose a threshold on."""
        return hours(self.held_out)


def gather(
    keyword: str,
    takes: Sequence[Path],
    negatives: Sequence[SourceFile],
    folder: Path,
    *,
    synthesize: str | None,
    seed: int,
    progress: Callable[..., Any] = tqdm,
) -> Material:
    """Decode and synthesize everything into `folder`.

    `synthesize`: the language in which synthesizers say the keyword and what sounds like it; None for no
    synthesizer. Where there are no negatives they read English to have some.

    Raises SynthesisError where there is no synthesizer that speaks the language, and CorpusError for a
    negative that is damaged.
    """
    parts = [[SourceFile(path, "clip", "training", keyword) for path in takes], [], [], list(negatives)]
    if synthesize:
        parts[1] = _voices(keyword, folder / "voices", synthesize, seed, progress)
        parts[2] = _lookalikes(keyword, folder / "lookalikes", synthesize, seed, progress)
    if not negatives:
        parts[3] = _reading(keyword, folder / "reading", seed, progress)
    corpus = decode([file for part in parts for file in part], folder / "corpus", progress=progress)
    at, found = 0, []
    for part in parts:
        found.append(corpus.recordings[at : at + len(part)])
        at += len(part)
    # A word of which energy does not tell where it is teaches nothing.
    words = [tuple(r for r in some if r.word is not None) for some in found[:3]]
    speech, held_out = hold_out(in_pieces(found[3]), seed)
    return Material(corpus, words[0], words[1], words[2], tuple(speech), tuple(held_out))


def _voices(keyword: str, folder: Path, language: str, seed: int, progress: Any) -> list[SourceFile]:
    voices = available_voices(language, _VOICES, seed=seed)
    paths = speak([(v, keyword) for v in voices], folder, progress=progress)
    return [SourceFile(p, "clip", "training", VOICE) for p in paths]


def _lookalikes(keyword: str, folder: Path, language: str, seed: int, progress: Any) -> list[SourceFile]:
    voices = [v for v in available_voices(language, 3 * _LOOKALIKES, seed=seed + 1) if v.takes_phonemes]
    words = phonemes(keyword, language)
    texts = confusables.parts(words)
    texts += confusables.neighbours(words, max(0, _LOOKALIKES // 2 - len(texts)), seed=seed)
    if not voices or not texts:
        return []
    lines = [(voices[i % len(voices)], texts[i % len(texts)]) for i in range(_LOOKALIKES)]
    return [SourceFile(p, "clip", "training", LOOKALIKE) for p in speak(lines, folder, progress=progress)]


def _reading(keyword: str, folder: Path, seed: int, progress: Any) -> list[SourceFile]:
    voices = available_voices("en", _READ_LINES, seed=seed + 2)
    said = [line for line in sentences.lines(2 * _READ_LINES, seed=seed) if not holds(line, keyword)]
    lines = list(zip(voices, said, strict=False))
    paths = speak(lines, folder, progress=progress)
    return [
        SourceFile(path, "speech", "training", line, voice.name)
        for path, (voice, line) in zip(paths, lines, strict=True)
    ]


def in_pieces(recordings: Iterable[Recording]) -> list[Recording]:
    """Cut long recordings into pieces of half a minute, which are heard one at a time."""
    length = _PIECE_S * SAMPLE_RATE_HZ
    return [
        replace(r, start=r.start + at, length=min(length, r.length - at))
        for r in recordings
        for at in range(0, r.length, length)
    ]


def hold_out(recordings: Sequence[Recording], seed: int) -> tuple[list[Recording], list[Recording]]:
    """Deal out recordings into what is trained on and what is held out, three tenths of them.

    All of a speaker's go into the same part, if there are several speakers.
    """
    groups: dict[str, list[Recording]] = defaultdict(list)
    for recording in recordings:
        groups[recording.speaker].append(recording)
    if len(groups) < _MANY_SPEAKERS:
        groups = {f"{r.start:015d}": [r] for r in recordings}
    names = sorted(groups)
    training: list[Recording] = []
    held_out: list[Recording] = []
    for i in np.random.default_rng(seed).permutation(len(names)):
        enough = hours(held_out) >= _HELD_OUT_SHARE * hours(recordings)
        (training if enough else held_out).extend(groups[names[i]])
    return training, held_out


def folds(count: int, parts: int, seed: int) -> list[tuple[int, ...]]:
    """Deal the numbers 0 to count - 1 out to `parts` of about equal length, at random."""
    order = np.random.default_rng(seed).permutation(count)
    return [tuple(sorted(order[i::parts].tolist())) for i in range(parts)]
