"""The recordings of a keyword: read them, and reject those that cannot be used."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from earmark_audio import find_recordings
from earmark_audio.utterance import UtteranceError, find_word

from earmark_training.data.corpus import SAMPLE_RATE_HZ, audio_seconds, read_audio
from earmark_training.errors import CorpusError, TrainingError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

log = logging.getLogger(__name__)

MIN_RECORDINGS = 8
"""With fewer recordings, none can be held out to measure the miss rate."""

FEW_RECORDINGS = 30
"""With fewer recordings, the miss rate for other speakers may be high."""

RECOMMENDED_RECORDINGS = 100

_MAX_S = 10.0
_MAX_REJECTED_SHARE = 0.2
_LISTED = 10


class RecordingsError(TrainingError):
    """The recordings cannot be used; the message names them and the remedy."""


@dataclass(frozen=True, slots=True)
class KeywordRecording:
    """A recording of the keyword: float32 [n] at 16 kHz, and the word's start and end in samples."""

    path: Path
    samples: NDArray[np.float32]
    word: tuple[int, int]


@dataclass(frozen=True, slots=True)
class RejectedRecording:
    """A recording that cannot be used, and the reason."""

    path: Path
    reason: str


def find_audio(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the audio files below a folder, sorted: those that can be read, and those in other formats.

    Log a warning for each folder that cannot be read: others may hold no audio, such as `lost+found`.

    Raises RecordingsError if there is no such folder.
    """
    if not folder.is_dir():
        raise RecordingsError(f"{folder} is not a folder: name the folder of the audio files")
    recordings, left_out = find_recordings(folder)
    for one in left_out:
        if one.path.is_dir():
            log.warning("%s cannot be read, and is left out: %s", one.path, one.why)
    return recordings, [one.path for one in left_out if one.is_recording]


def read_recordings(
    folder: Path, *, least: int = MIN_RECORDINGS
) -> tuple[list[KeywordRecording], list[RejectedRecording]]:
    """Read the recordings of a keyword below a folder; return the usable and the rejected ones.

    Raises RecordingsError if the folder is missing or empty, if more than a fifth of the recordings is
    rejected, or if fewer than `least` are usable.
    """
    files, others = find_audio(folder)
    if not files and not others:
        raise RecordingsError(
            f"{folder} contains no recordings: put one WAV or FLAC file per utterance into it"
        )
    rejected = [
        RejectedRecording(path, f"{path.suffix[1:]} files need ffmpeg: install it, or convert the file")
        for path in others
    ]
    recordings: list[KeywordRecording] = []
    first_with_digest: dict[str, Path] = {}
    for path in files:
        recording = read_recording(path)
        if isinstance(recording, KeywordRecording):
            digest = hashlib.sha256(recording.samples.tobytes()).hexdigest()
            first = first_with_digest.setdefault(digest, path)
            if first != path:
                recording = RejectedRecording(path, f"it is the same recording as {first.name}")
        if isinstance(recording, KeywordRecording):
            recordings.append(recording)
        else:
            rejected.append(recording)
    count = len(recordings) + len(rejected)
    if len(rejected) > max(1, _MAX_REJECTED_SHARE * count):
        raise RecordingsError(
            f"{len(rejected)} of {count} recordings in {folder} cannot be used; fix or remove them:\n"
            + list_rejected(rejected)
        )
    if len(recordings) < least:
        raise RecordingsError(
            f"{folder} contains {len(recordings)} usable recordings, at least {least} are needed "
            f"({RECOMMENDED_RECORDINGS} or more, by as many people as possible, are recommended)"
            + (":\n" + list_rejected(rejected) if rejected else "")
        )
    return recordings, rejected


def list_rejected(rejected: Iterable[RejectedRecording]) -> str:
    """Return one line per recording with its reason; only the first ten of many."""
    lines = [f"  {r.path}: {r.reason}" for r in rejected]
    more = [f"  … and {len(lines) - _LISTED} more"] if len(lines) > _LISTED else []
    return "\n".join(lines[:_LISTED] + more)


def read_recording(path: Path) -> KeywordRecording | RejectedRecording:
    """Read a recording of a keyword, or return why it cannot be used."""
    try:
        seconds = audio_seconds(path)
        too_long = seconds > _MAX_S
        samples = np.zeros(0, np.float32) if too_long else read_audio(path)
    except CorpusError as error:
        sentence = str(error).removeprefix(f"{path} cannot be read: ")
        return RejectedRecording(path, sentence[0].lower() + sentence[1:].rstrip("."))
    if too_long:
        return RejectedRecording(
            path, f"it is {seconds:.0f} s long: cut it into pieces of one utterance each, 1 to 3 s"
        )
    try:
        return KeywordRecording(path, samples, find_word(samples, SAMPLE_RATE_HZ))
    except UtteranceError as error:
        return RejectedRecording(path, str(error))
