"""The recordings that a model is evaluated on: a prepared corpus's validation split, or given folders.

Folders are decoded into a corpus, all of it for validation, so that the same code evaluates both.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from earmark_audio.progress import SILENT, Progress

from earmark_training.data.coloured_noise import NOISE_COLOURS
from earmark_training.data.corpus import (
    NOISE_FOLDER,
    Corpus,
    SourceFile,
    decode,
    find_clips,
    find_speech_or_raise,
    synthetic_noises,
)
from earmark_training.data.vocabulary import SILENCE, UNKNOWN
from earmark_training.errors import CorpusError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from earmark_training.data.corpus import Split

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EvaluationSet:
    """The validation split of `corpus`, and a description of it."""

    corpus: Corpus
    description: str
    """The clips and the speech, as they are named in reports."""
    noise: str
    """The source of the noise that is added to streams, as it is named in reports."""
    thresholds_chosen_on_it: bool
    """Whether the model's thresholds were probably chosen on these recordings."""


def from_corpus(corpus: Corpus) -> EvaluationSet:
    """Return the validation split of a prepared corpus."""
    description = "the validation speakers of the prepared corpus"
    noise = f"the last quarter of the recordings in {NOISE_FOLDER}"
    names = {recording.text for recording in corpus.clip_noises("validation")}
    if names == NOISE_COLOURS.keys():
        noise = f"synthetic ({', '.join(NOISE_COLOURS)}), since the clips came without {NOISE_FOLDER}"
    return EvaluationSet(corpus, description, noise, thresholds_chosen_on_it=True)


def from_folders(
    clips: Path | None,
    speech: Sequence[Path],
    split: Split | None,
    out: Path,
    *,
    progress: Progress = SILENT,
) -> EvaluationSet:
    """Decode folders of clips and of read speech into `out`, and return them as an evaluation set.

    `clips` has the layout of Google Speech Commands, of which one split is used (None: testing if there is
    one, else validation), or that of the data set's published test archives, which are used completely.
    `speech` are folders with transcripts in LibriSpeech's layout, which are used completely.
    Raises CorpusError for a folder that is missing or contains no usable recordings.
    """
    for folder in (*((clips,) if clips else ()), *speech):
        if not folder.is_dir():
            raise CorpusError(f"{folder} is not a folder: name the folder of the recordings")
    descriptions, files, noise = [], [], f"none: no {NOISE_FOLDER} was given"
    if clips:
        sources = list(find_clips(clips))
        chosen, which = _choose_split(clips, [f for f in sources if f.kind == "clip"], split)
        noises = [f for f in sources if f.kind == "noise"]
        noise = f"the last quarter of the recordings in {clips / NOISE_FOLDER}"
        if not noises:
            noise = f"synthetic ({', '.join(NOISE_COLOURS)}), since {clips} has no {NOISE_FOLDER}"
            noises = synthetic_noises(out)
        files += [*chosen, *noises]
        descriptions.append(f"{len(chosen)} clips in {clips} ({which})")
    for folder in speech:
        utterances = find_speech_or_raise(folder)
        files += [replace(u, split="validation") for u in utterances]
        descriptions.append(f"{len(utterances)} utterances in {folder} (all of them)")
    corpus = decode(files, out, progress=progress)
    return EvaluationSet(corpus, "; ".join(descriptions), noise, thresholds_chosen_on_it=False)


def _choose_split(folder: Path, clips: list[SourceFile], split: Split | None) -> tuple[list[SourceFile], str]:
    """Return the clips of the split, as validation clips, and a description of which they are."""
    if not clips:
        raise CorpusError(f"{folder} contains no clips laid out as <word>/<name>.<wav|flac|ogg|opus>")
    if is_test_archive({c.text for c in clips}):
        return [replace(c, split="validation") for c in clips], "a test archive: all of them"
    by_split = {s: [c for c in clips if c.split == s] for s in ("testing", "validation", "training")}
    split = split or ("testing" if by_split["testing"] else "validation")
    if not by_split[split]:
        counts = ", ".join(f"{len(split_clips)} for {name}" for name, split_clips in by_split.items())
        raise CorpusError(
            f"{folder} has no clips for {split}: by its list files or its file names, it has {counts}"
        )
    return [replace(c, split="validation") for c in by_split[split]], f"split: {split}"


def is_test_archive(words: set[str]) -> bool:
    """Return whether these are the folders of a published test archive, which has silence and unknown."""
    return {SILENCE, UNKNOWN} <= words
