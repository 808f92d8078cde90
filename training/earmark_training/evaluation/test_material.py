"""What a model is measured on: a prepared corpus's validation split, or folders given as they are.

Folders become a small corpus of their own, all of it for validation, so that one measurement serves both.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile
from tqdm import tqdm

from earmark_training.data.corpus import (
    NOISE_FOLDER,
    SAMPLE_RATE_HZ,
    Corpus,
    SourceFile,
    decode,
    find_clips,
    find_speech,
)
from earmark_training.data.vocabulary import SILENCE, UNKNOWN
from earmark_training.errors import CorpusError
from earmark_training.evaluation.non_speech import coloured_noise

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from earmark_training.data.corpus import Split

log = logging.getLogger(__name__)

_NOISE_COLOURS = {"white": 0.0, "pink": 1.0, "brown": 2.0}
_NOISE_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Material:
    """What to measure on: the validation split of `corpus`, and in words what that is."""

    corpus: Corpus
    description: str
    """Whose clips and which speech, as it is printed."""
    noise: str
    """Where the noise under the streams comes from."""
    calibrated_on: bool
    """Whether thresholds were, for all that is known, chosen on the same recordings."""


def prepared(corpus: Corpus) -> Material:
    """Measure on the validation split of a prepared corpus."""
    description = "the validation speakers of the prepared data"
    return Material(corpus, description, f"last quarter of the recordings in {NOISE_FOLDER}", True)


def from_folders(
    clips: Path | None,
    speech: Sequence[Path],
    split: Split | None,
    out: Path,
    *,
    progress: Callable[..., tqdm[Any]] = tqdm,
) -> Material:
    """Decode folders of clips and of read speech into `out`, to measure on them.

    clips: as in Google Speech Commands, of which one split is taken (None: testing where there is one,
    else validation); or as the data set's published test archives, in which everything is for testing.
    speech: folders with transcripts in LibriSpeech's layout, all of which is taken.
    Raises CorpusError for a folder that is missing, or holds nothing of use.
    """
    for folder in (*((clips,) if clips else ()), *speech):
        if not folder.is_dir():
            raise CorpusError(f"{folder} is no folder: name one that holds the recordings")
    said, files, noise = [], [], f"none: no {NOISE_FOLDER} was given"
    if clips:
        found = list(find_clips(clips))
        chosen, what = _choose_split(clips, [f for f in found if f.kind == "clip"], split)
        noises = [f for f in found if f.kind == "noise"]
        noise = f"last quarter of the recordings in {clips / NOISE_FOLDER}"
        if not noises:
            noise = f"synthetic ({', '.join(_NOISE_COLOURS)}), since {clips} has no {NOISE_FOLDER}"
            noises = _synthetic_noises(out)
        files += [*chosen, *noises]
        said.append(f"{len(chosen)} clips in {clips} ({what})")
    for folder in speech:
        utterances = list(find_speech(folder))
        if not utterances:
            raise CorpusError(f"{folder} holds no utterances with *.trans.txt transcripts beside them")
        files += [replace(u, split="validation") for u in utterances]
        said.append(f"{len(utterances)} utterances in {folder} (all of them)")
    return Material(decode(files, out, progress=progress), "; ".join(said), noise, False)


def _choose_split(folder: Path, clips: list[SourceFile], split: Split | None) -> tuple[list[SourceFile], str]:
    """Return the clips of the split, marked for validation, and in words which they are."""
    if not clips:
        raise CorpusError(f"{folder} holds no clips laid out <word>/<name>.<wav|flac|ogg|opus>")
    if is_test_archive({c.text for c in clips}):
        return [replace(c, split="validation") for c in clips], "a test archive: all of them"
    by_split = {s: [c for c in clips if c.split == s] for s in ("testing", "validation", "training")}
    split = split or ("testing" if by_split["testing"] else "validation")
    if not by_split[split]:
        has = ", ".join(f"{len(found)} for {name}" for name, found in by_split.items())
        raise CorpusError(
            f"{folder} has no clips for {split}: by its list files or its file names, it has {has}"
        )
    return [replace(c, split="validation") for c in by_split[split]], f"split: {split}"


def is_test_archive(words: set[str]) -> bool:
    """Return whether these are the folders of a published test archive: silence and unknown among them."""
    return {SILENCE, UNKNOWN} <= words


def _synthetic_noises(out: Path) -> list[SourceFile]:
    """Write a minute of each colour of noise, of which a quarter will be used."""
    out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    files = []
    for name, slope in _NOISE_COLOURS.items():
        samples = 0.1 * coloured_noise(rng, _NOISE_SECONDS * SAMPLE_RATE_HZ, slope)
        soundfile.write(out / f"{name}.wav", samples, SAMPLE_RATE_HZ)
        files.append(SourceFile(out / f"{name}.wav", "noise", "training", name))
    return files
