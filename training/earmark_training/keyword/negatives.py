"""Speech without the keyword: found in folders, and freed of utterances that hold it."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import soundfile

from earmark_training.data.corpus import SourceFile, read_transcripts
from earmark_training.keyword.recordings import RecordingsError, find_audio

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

log = logging.getLogger(__name__)

MAX_HOURS = 10.0
"""More speech than this is not read: a random part of it is taken."""


@dataclass(frozen=True, slots=True)
class Negatives:
    """Audio files without the keyword."""

    files: tuple[SourceFile, ...]
    left_out: int
    """Utterances whose transcript holds the keyword."""


def find_negatives(folders: Sequence[Path], keyword: str, *, seed: int) -> Negatives:
    """Find audio below the folders, at most MAX_HOURS of it.

    Transcripts in LibriSpeech's layout (`*.trans.txt` beside the audio) are used where there are any:
    utterances with the keyword are left out, and speakers told apart. Otherwise what lies in one folder
    counts as one speaker's.

    Raises RecordingsError where a folder is missing or holds no audio that can be read.
    """
    files: list[SourceFile] = []
    left_out = 0
    for folder in folders:
        readable, _ = find_audio(folder)
        if not readable:
            raise RecordingsError(f"{folder} holds no audio that can be read (WAV, FLAC, Ogg, Opus, MP3, …)")
        known = {path: (speaker, text) for path, speaker, text in read_transcripts(folder)}
        for path in readable:
            speaker, text = known.get(path.with_suffix(""), (path.parent.as_posix(), ""))
            if holds(text, keyword):
                left_out += 1
                continue
            files.append(SourceFile(path, "speech", "training", text, speaker))
    return Negatives(tuple(_at_most(files, MAX_HOURS, seed)), left_out)


def holds(text: str, keyword: str) -> bool:
    """Say whether a transcript has the keyword, or a word that begins with it ("computers")."""
    return f" {_plain(keyword)}" in f" {_plain(text)}"


def _plain(text: str) -> str:
    return " ".join(re.findall(r"[^\W_]+", text.lower().replace("'", "")))


def _at_most(files: Sequence[SourceFile], hours: float, seed: int) -> list[SourceFile]:
    """Return files at random until there are that many hours."""
    chosen: list[SourceFile] = []
    total = 0.0
    for i in np.random.default_rng(seed).permutation(len(files)):
        if total > hours:
            break
        try:
            total += soundfile.info(files[i].path).duration / 3600
        except soundfile.LibsndfileError as error:
            raise RecordingsError(
                f"{files[i].path} cannot be read: convert it to WAV or FLAC, or remove it ({error})"
            ) from error
        chosen.append(files[i])
    return sorted(chosen, key=lambda f: f.path)
