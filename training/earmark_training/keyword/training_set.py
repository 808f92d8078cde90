"""The training set of keywords: their recordings, synthesized words, and speech without the keywords."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from earmark_audio.progress import SILENT, Progress

from earmark_training.data.corpus import DECODING, SAMPLE_RATE_HZ, SourceFile, decode, hours, speech_split
from earmark_training.keyword import confusables, sentences, similar_words
from earmark_training.keyword.helpers import HelperClip, write_helpers
from earmark_training.keyword.negatives import check_length, contains_any
from earmark_training.keyword.neural_speech import (
    CONFUSABLE_LINES,
    KEYWORD_LINES,
    OTHER_WORDS,
    SENTENCES,
    read_confusables,
    read_keyword,
    read_other_words,
    read_sentences,
)
from earmark_training.keyword.synthesis import available_voices, is_available, phonemes, synthesize

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from earmark_training.data.corpus import Corpus, Recording
    from earmark_training.keyword.kokoro import Reader
    from earmark_training.keyword.mistakes import ReviewedClip
    from earmark_training.keyword.pronunciation import Phonemes

CONFUSABLE = "a confusable, synthesized"
"""The text of confusables in the corpus; recordings and synthesized keywords have the keyword itself."""

_SYNTHESIZED_KEYWORDS = 240
_SYNTHESIZED_CONFUSABLES = 240  # of at most half as many different words
_SYNTHESIZED_LINES = 600  # about 45 minutes
_READING_OTHER_WORDS, _READING_SENTENCES = "reading other words", "reading sentences"
_SYNTHESIZING_SENTENCES = "synthesizing sentences"
_READ_LINE_S, _SYNTHESIZED_LINE_S, _DECODED_FILE_S = 0.8, 0.03, 0.02  # on two cores
_HELD_OUT_SHARE = 0.3
_PIECE_S = 30
_VOICE_PARTS = 6


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """Recordings by their role, all in one corpus.

    `recordings` are the recordings of the keywords with the place of the word, `synthesized` the same by
    synthesizers, `confusables` synthesized words that sound like one, and `speech` other speech. `held_out`
    is speech that is not trained on: the thresholds are chosen on it.
    """

    corpus: Corpus
    keywords: tuple[str, ...]
    recordings: tuple[Recording, ...]
    synthesized: tuple[Recording, ...]
    confusables: tuple[Recording, ...]
    speech: tuple[Recording, ...]
    held_out: tuple[Recording, ...]
    helpers: tuple[Recording, ...] = ()
    """Other words by neural voices, which the networks are trained to tell apart: see `helpers`."""
    mistakes: tuple[Recording, ...] = ()
    """Reviewed false alarms; `word` is the place of what was mistaken for the keyword."""

    @property
    def helper_words(self) -> tuple[str, ...]:
        """The words of the helpers."""
        return tuple(sorted({r.text for r in self.helpers}))

    @property
    def measured(self) -> tuple[Recording, ...]:
        """The examples that the miss rate is measured on: the recordings, or the synthesized keywords."""
        return self.recordings or self.synthesized

    def without(self, left_out: Iterable[int]) -> TrainingSet:
        """Return the training set without the measured examples at these indices."""
        excluded = set(left_out)
        kept = tuple(r for i, r in enumerate(self.measured) if i not in excluded)
        return replace(self, recordings=kept) if self.recordings else replace(self, synthesized=kept)

    @property
    def held_out_hours(self) -> float:
        """The length of the held-out speech."""
        return hours(self.held_out)


@dataclass(frozen=True, slots=True)
class NeuralVoices:
    """A neural synthesizer, the language that it reads, and the pronunciation of each keyword.

    `accents` are other pronunciations of some keywords.
    """

    reader: Reader
    language: str
    pronunciations: Mapping[str, Sequence[Phonemes]]
    accents: Mapping[str, Sequence[Sequence[Phonemes]]] = field(default_factory=dict)

    def homophones(self) -> frozenset[str]:
        """Return the common words that sound like a keyword in another spelling."""
        of_each = (similar_words.homophones(k, w, self.language) for k, w in self.pronunciations.items())
        return frozenset().union(*of_each)


def collect(
    recordings: Mapping[str, Sequence[Path]],
    negatives: Sequence[SourceFile],
    folder: Path,
    *,
    language: str | None = None,
    voices: NeuralVoices | None = None,
    helpers: bool = False,
    mistakes: Sequence[ReviewedClip] = (),
    seed: int,
    progress: Progress = SILENT,
) -> TrainingSet:
    """Decode the recordings of each keyword and the negatives, and synthesize the rest, into `folder`.

    With a `language`, installed synthesizers speak the keywords and their confusables in it, with `voices`
    neural ones do; with `helpers`, there are other English words for the networks to tell apart as well.
    Without negatives, synthesizers read English text as speech without the keywords.

    Raises SynthesisError if no synthesizer speaks the language, CorpusError for a damaged negative, and
    RecordingsError if there is too little speech.
    """
    files = [SourceFile(path, "clip", "training", k) for k, paths in recordings.items() for path in paths]
    spoken, places, similar = synthesize_words(
        tuple(recordings), folder, language=language, voices=voices, seed=seed, progress=progress
    )
    others = list(negatives)
    if not others:
        others = _synthesize_speech(tuple(recordings), folder / "speech", seed, progress, voices)
    wrong = [clip for clip in mistakes if not clip.is_missed]
    helping: list[HelperClip] = []
    if voices and helpers and voices.language.startswith("en"):
        helping, like_helpers = write_helpers(voices.pronunciations.values(), folder / "helpers")
        similar += [SourceFile(path, "clip", "training", CONFUSABLE) for path in like_helpers]
    helper_files = [SourceFile(clip.path, "clip", "training", clip.word) for clip in helping]
    parts = [files, spoken, similar, others, [clip.source for clip in wrong], helper_files]
    corpus = decode([file for part in parts for file in part], folder / "corpus", progress=progress)
    position, decoded = 0, []
    for part in parts:
        decoded.append(corpus.recordings[position : position + len(part)])
        position += len(part)
    decoded[1] = [replace(r, word=place or r.word) for r, place in zip(decoded[1], places, strict=True)]
    false_alarms = tuple(replace(r, word=c.word) for r, c in zip(decoded[4], wrong, strict=True))
    # A word that energy does not locate cannot be learned from.
    words_of = [tuple(r for r in part if r.word is not None) for part in decoded[:3]]
    speech, held_out = hold_out(decoded[3], seed)
    return TrainingSet(
        corpus,
        tuple(recordings),
        recordings=words_of[0],
        synthesized=words_of[1],
        confusables=words_of[2],
        speech=tuple(speech),
        held_out=tuple(held_out),
        mistakes=false_alarms,
        helpers=tuple(replace(r, word=c.place) for r, c in zip(decoded[5], helping, strict=True)),
    )


def synthesize_words(
    keywords: Sequence[str],
    folder: Path,
    *,
    language: str | None,
    voices: NeuralVoices | None,
    seed: int,
    progress: Progress,
) -> tuple[list[SourceFile], list[tuple[int, int] | None], list[SourceFile]]:
    """Return files of the keywords, the place of the word in each where it is known, and confusables."""
    spoken: list[SourceFile] = []
    places: list[tuple[int, int] | None] = []
    similar: list[SourceFile] = []
    for keyword in keywords:
        name = f"{len(spoken):05d}"
        if language:
            paths = _synthesize_keyword(keyword, folder / name / "keyword", language, seed, progress)
            spoken += paths
            places += [None] * len(paths)
            similar += _synthesize_confusables(
                keyword, folder / name / "confusables", language, seed, progress
            )
        if voices:
            words = voices.pronunciations[keyword]
            all_keywords = list(voices.pronunciations.values())
            read = read_keyword(
                voices.reader,
                [words, *voices.accents.get(keyword, ())],
                voices.language,
                keywords=all_keywords,
                seed=seed,
                progress=progress,
                desc=_reading(keyword),
            )
            spoken += [SourceFile(k.path, "clip", "training", keyword, k.voice) for k in read]
            places += [k.word for k in read]
            similar += [
                SourceFile(path, "clip", "training", CONFUSABLE)
                for _, path in read_confusables(
                    voices.reader,
                    keyword,
                    words,
                    voices.language,
                    keywords=all_keywords,
                    seed=seed,
                    progress=progress,
                    desc=_reading_confusables(keyword),
                )
            ]
    if voices:
        common = read_other_words(
            voices.reader,
            voices.pronunciations.values(),
            voices.language,
            progress=progress,
            desc=_READING_OTHER_WORDS,
        )
        similar += [SourceFile(path, "clip", "training", CONFUSABLE) for path in common]
    return spoken, places, similar


def expected_s(
    recordings: Mapping[str, Sequence[Path]],
    negatives: Sequence[SourceFile],
    *,
    language: str | None,
    voices: NeuralVoices | None,
) -> dict[str, float]:
    """Return the phases of `collect`, each with the seconds that it takes on two cores."""
    expected: dict[str, float] = {}
    for keyword in recordings:
        if language:
            expected[_synthesizing(keyword)] = _SYNTHESIZED_KEYWORDS * _SYNTHESIZED_LINE_S
            expected[_synthesizing_confusables(keyword)] = _SYNTHESIZED_CONFUSABLES * _SYNTHESIZED_LINE_S
        if voices:
            expected[_reading(keyword)] = KEYWORD_LINES * _READ_LINE_S
            expected[_reading_confusables(keyword)] = CONFUSABLE_LINES * _READ_LINE_S
    if voices:
        expected[_READING_OTHER_WORDS] = OTHER_WORDS * _READ_LINE_S
    if not negatives and voices:
        expected[_READING_SENTENCES] = SENTENCES * _READ_LINE_S
    if not negatives and (not voices or is_available("en")):
        expected[_SYNTHESIZING_SENTENCES] = _SYNTHESIZED_LINES * _SYNTHESIZED_LINE_S
    files = sum(map(len, recordings.values())) + len(negatives or range(_SYNTHESIZED_LINES))
    return expected | {DECODING: files * _DECODED_FILE_S}


def _reading(keyword: str) -> str:
    return f"reading {keyword!r}"


def _reading_confusables(keyword: str) -> str:
    return f"reading words that sound like {keyword!r}"


def _synthesizing(keyword: str) -> str:
    return f"synthesizing {keyword!r}"


def _synthesizing_confusables(keyword: str) -> str:
    return f"synthesizing words that sound like {keyword!r}"


def _synthesize_keyword(
    keyword: str, folder: Path, language: str, seed: int, progress: Progress
) -> list[SourceFile]:
    voices = available_voices(language, _SYNTHESIZED_KEYWORDS, seed=seed)
    lines = [(v, keyword) for v in voices]
    paths = synthesize(lines, folder, progress=progress, desc=_synthesizing(keyword))
    return [SourceFile(p, "clip", "training", keyword) for p in paths]


def _synthesize_confusables(
    keyword: str, folder: Path, language: str, seed: int, progress: Progress
) -> list[SourceFile]:
    candidates = available_voices(language, 3 * _SYNTHESIZED_CONFUSABLES, seed=seed + 1)
    voices = [v for v in candidates if v.accepts_phonemes]
    words = phonemes(keyword, language)
    texts = confusables.parts(words)
    texts += confusables.variants(words, max(0, _SYNTHESIZED_CONFUSABLES // 2 - len(texts)), seed=seed)
    if not voices or not texts:
        return []
    lines = [(voices[i % len(voices)], texts[i % len(texts)]) for i in range(_SYNTHESIZED_CONFUSABLES)]
    paths = synthesize(lines, folder, progress=progress, desc=_synthesizing_confusables(keyword))
    return [SourceFile(p, "clip", "training", CONFUSABLE) for p in paths]


def _synthesize_speech(
    keywords: Sequence[str],
    folder: Path,
    seed: int,
    progress: Progress,
    neural: NeuralVoices | None,
) -> list[SourceFile]:
    found: list[SourceFile] = []
    homophones = neural.homophones() if neural else frozenset()
    if neural:
        read = read_sentences(
            neural.reader,
            keywords,
            homophones=homophones,
            seed=seed,
            progress=progress,
            desc=_READING_SENTENCES,
        )
        found = [SourceFile(path, "speech", "training", text, voice) for path, text, voice in read]
        if not is_available("en"):
            return found
    voices = available_voices("en", _SYNTHESIZED_LINES, seed=seed + 2)
    candidates = sentences.lines(2 * _SYNTHESIZED_LINES, seed=seed)
    texts = [t for t in candidates if not contains_any(t, keywords, homophones)]
    lines = list(zip(voices, texts, strict=False))
    paths = synthesize(lines, folder, progress=progress, desc=_SYNTHESIZING_SENTENCES)
    return found + [
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
    """Split speech at random into a training part and a held-out part of about three tenths, in pieces.

    All speech of a speaker is in the same part; all speech of a file, if one speaker has more than half of
    the speech; and if one file has, each piece is split by itself. Speakers that the bundled model was
    validated on (`speech_split`) are held out first: it was not trained on them either. At most half of the
    speech is held out. Raises RecordingsError if there is less than a minute of speech.
    """
    total = hours(recordings)
    check_length(total * 3600)
    groups = _groups(recordings, lambda r: r.speaker)
    if max(map(hours, groups.values())) > total / 2:
        groups = _groups(recordings, lambda r: f"{r.start:015d}")
    if max(map(hours, groups.values())) > total / 2:
        groups = _groups(cut_into_pieces(recordings), lambda r: f"{r.start:015d}")
    names = sorted(groups)
    order = [groups[names[i]] for i in np.random.default_rng(seed).permutation(len(names))]
    order.sort(key=lambda group: speech_split(group[0].speaker) != "validation")
    training: list[Recording] = []
    held_out: list[Recording] = []
    for group in order:
        enough = hours(held_out) >= _HELD_OUT_SHARE * total
        too_much = hours(held_out) + hours(group) > total / 2
        (training if enough or too_much else held_out).extend(group)
    return cut_into_pieces(training), cut_into_pieces(held_out)


def _groups(recordings: Iterable[Recording], name: Callable[[Recording], str]) -> dict[str, list[Recording]]:
    groups: dict[str, list[Recording]] = defaultdict(list)
    for recording in recordings:
        groups[name(recording)].append(recording)
    return groups


def folds(count: int, parts: int, seed: int) -> list[tuple[int, ...]]:
    """Split the indices 0 to count - 1 at random into `parts` of nearly equal size.

    Recordings of the same person can be in several parts, because nothing names the person.
    """
    order = np.random.default_rng(seed).permutation(count)
    return [tuple(sorted(order[i::parts].tolist())) for i in range(parts)]


def voice_folds(synthesized: Sequence[Recording], parts: int, seed: int) -> list[tuple[int, ...]]:
    """Return the indices of the words of one in six voices, for each of `parts` disjoint sets of voices.

    A blend belongs to both its voices, so that a voice that is left out says the keyword in no other example.
    It still reads confusables and other speech, which are trained on.
    """
    names = sorted({v for r in synthesized for v in r.speaker.split("+")})
    order = np.random.default_rng(seed).permutation(len(names))
    left_out = [{names[j] for j in order[i::_VOICE_PARTS]} for i in range(parts)]
    return [
        tuple(i for i, r in enumerate(synthesized) if voices & set(r.speaker.split("+")))
        for voices in left_out
    ]
