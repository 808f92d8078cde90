"""Negative examples: speech without the keyword, from folders of any audio."""

from __future__ import annotations

import hashlib
import unicodedata
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from earmark_audio import AudioFileError, RecordingFile

from earmark_training.data.corpus import SourceFile, audio_seconds, read_transcripts
from earmark_training.errors import CorpusError
from earmark_training.keyword.letters import is_letter
from earmark_training.keyword.recordings import RecordingsError, find_audio

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from pathlib import Path

MIN_S = 60
"""The shortest speech that can be trained on."""
MAX_HOURS = 10.0
"""Of more speech than this, random files are used, and the beginning of the last one."""
_LEAST_S = 1.0
_WITHOUT_SPACES = ("CJK UNIFIED ", "HIRAGANA ", "KATAKANA")
"""How the names of letters begin in Unicode that are written without spaces between words."""


@dataclass(frozen=True, slots=True)
class Negatives:
    """Audio files without the keyword."""

    files: tuple[SourceFile, ...]
    left_out: int
    """The number of utterances that were left out because their transcript contains the keyword."""
    recordings: int = 0
    """The number of files that were left out because they are recordings of the keyword."""


def find_negatives(
    folders: Sequence[Path],
    keywords: Sequence[str],
    *,
    homophones: Collection[str] = (),
    recordings: Iterable[Path] = (),
    seed: int,
) -> Negatives:
    """Return the audio files below the folders but the keywords' `recordings`, at most MAX_HOURS of them.

    A file that is there several times is used once. Copies of the recordings are known by their samples.

    Transcripts in LibriSpeech's layout (`*.trans.txt` beside the audio) are used if there are any: utterances
    with a keyword or one of the `homophones` are left out, and speakers are known. Files without a transcript
    count as one speaker per folder.

    Raises RecordingsError if a folder is missing or contains no readable audio, or if too little is left.
    """
    files: list[SourceFile] = []
    left_out = of_keyword = 0
    recordings = list(recordings)
    excluded = {path.resolve() for path in recordings}
    known_files: set[Path] = set()
    for folder in folders:
        readable, _ = find_audio(folder)
        if not readable:
            raise RecordingsError(f"{folder} contains no readable audio (WAV, FLAC, Ogg, Opus, MP3, …)")
        known = {path: (speaker, text) for path, speaker, text in read_transcripts(folder)}
        for path in readable:
            file = path.resolve()
            if file in known_files:
                continue
            known_files.add(file)
            if file in excluded:
                of_keyword += 1
                continue
            speaker, text = known.get(path.with_suffix(""), (path.parent.as_posix(), ""))
            if contains_any(text, keywords, homophones):
                left_out += 1
                continue
            files.append(SourceFile(path, "speech", "training", text, speaker))
    chosen, copies = _sample(files, MAX_HOURS, seed, _Recordings(recordings))
    of_keyword += copies
    if folders and not chosen:
        raise RecordingsError(
            f"nothing of --negatives is left: {of_keyword} files are recordings of the keyword, and the "
            f"transcripts of {left_out} contain it. Add hours of speech without the keyword"
        )
    if chosen:
        check_length(sum(seconds for _, seconds in chosen))  # now: reading the keyword takes many minutes
    used = sorted((file for file, _ in chosen), key=lambda file: file.path)
    return Negatives(tuple(used), left_out, of_keyword)


def contains_keyword(text: str, keyword: str) -> bool:
    """Return whether a transcript has the keyword, or a word that starts with it ("computers").

    Japanese and Chinese have no spaces between words: there, the keyword may be anywhere.
    """
    if any(unicodedata.name(c, "").startswith(_WITHOUT_SPACES) for c in keyword):
        return normalize(keyword).replace(" ", "") in normalize(text).replace(" ", "")
    return f" {normalize(keyword)}" in f" {normalize(text)}"


def contains_any(text: str, keywords: Iterable[str], homophones: Collection[str]) -> bool:
    """Return whether a transcript has one of the keywords, or a homophone of one as a whole word."""
    words = normalize(text).split() if homophones else ()
    return not set(homophones).isdisjoint(words) or any(contains_keyword(text, k) for k in keywords)


def normalize(text: str) -> str:
    """Return the words of a text in lower case, without punctuation."""
    text = unicodedata.normalize("NFC", text).lower().replace("'", "").replace("’", "")
    return " ".join("".join(c if c.isalnum() or is_letter(c) else " " for c in text).split())


def check_length(seconds: float) -> None:
    """Raise RecordingsError if speech without the keyword of this length is too little to train on."""
    if seconds < MIN_S:
        raise RecordingsError(
            f"the speech without the keyword is only {seconds:.0f} s long: at least {MIN_S} s are needed, "
            "and hours are better, so add folders with --negatives"
        )


class _Recordings:
    """Recordings of the keywords. They are decoded only to be compared with a file that is as long."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._of_length: defaultdict[float, list[Path]] = defaultdict(list)
        self._digests: dict[Path, bytes] = {}
        for path in paths:
            with suppress(CorpusError):  # it is left out, for that reason
                self._of_length[audio_seconds(path)].append(path)

    def include(self, path: Path, seconds: float) -> bool:
        """Return whether a file of this length has the samples of one of them."""
        of_length = self._of_length.get(seconds, [])
        return any(self._digest(path) == self._digest(one) for one in of_length)

    def _digest(self, path: Path) -> bytes:
        if path not in self._digests:
            digest = hashlib.sha256()
            with suppress(AudioFileError, OSError), RecordingFile(path) as recording:
                for block in recording.mono():
                    digest.update(block.tobytes())
            self._digests[path] = digest.digest()
        return self._digests[path]


def _sample(
    files: Sequence[SourceFile], hours: float, seed: int, recordings: _Recordings
) -> tuple[list[tuple[SourceFile, float]], int]:
    """Return random files of `hours` hours together, the last one limited; or all of them.

    Each comes with the seconds that are used of it. Return also how many copies of the `recordings` were
    passed over. Raises RecordingsError if a file cannot be read.
    """
    chosen: list[tuple[SourceFile, float]] = []
    copies = 0
    left_s = hours * 3600
    for i in np.random.default_rng(seed).permutation(len(files)):
        if left_s < _LEAST_S:
            break
        try:
            seconds = audio_seconds(files[i].path)
        except CorpusError as error:
            raise RecordingsError(f"{error} Correct or remove the file.") from error
        if recordings.include(files[i].path, seconds):
            copies += 1
            continue
        limited = files[i] if seconds <= left_s else replace(files[i], max_s=left_s)
        chosen.append((limited, min(seconds, left_s)))
        left_s -= seconds
    return chosen, copies
