"""The recordings of a keyword: finding them, and refusing what nothing can be learnt from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import soundfile

from earmark_training.data.corpus import SAMPLE_RATE_HZ, read_audio
from earmark_training.data.endpointing import locate_word
from earmark_training.errors import CorpusError, TrainingError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

MIN_RECORDINGS = 8
"""With fewer nothing can be held out to see how well the keyword is heard."""

FEW_RECORDINGS = 30
"""With fewer, much of what others say may be missed."""

RECOMMENDED_RECORDINGS = 100

_READABLE = frozenset(
    ".wav .flac .ogg .opus .mp3 .aif .aiff .aifc .au .snd .caf .w64 .rf64".split()  # noqa: SIM905
)
_OTHER_AUDIO = frozenset(".m4a .aac .mp4 .wma .amr .3gp .webm .mka .ra .mov".split())  # noqa: SIM905
_SHORTEST_S, _LONGEST_S = 0.3, 10.0
_LONGEST_WORD_S = 2.5
_SILENT_PEAK = 10 ** (-50 / 20)
_CLIPPED_SHARE = 0.02
_AT_THE_TOP = 0.999
_FEW_BAD = 0.2
_LISTED = 10


class RecordingsError(TrainingError):
    """The recordings cannot be used; the message says which, and what to do."""


@dataclass(frozen=True, slots=True)
class Take:
    """A recording of the keyword: float32 [n] at 16 kHz, and where in it the word is, in samples."""

    path: Path
    samples: NDArray[np.float32]
    word: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Rejected:
    """A recording that cannot be used, and why."""

    path: Path
    reason: str


def find_audio(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the audio files below a folder, in order: those that can be read, and those of other formats.

    Raises RecordingsError where there is no such folder.
    """
    if not folder.is_dir():
        raise RecordingsError(f"{folder} is no folder: name the folder that holds the audio files")
    files = sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))
    readable = [p for p in files if p.suffix.lower() in _READABLE]
    return readable, [p for p in files if p.suffix.lower() in _OTHER_AUDIO]


def read_takes(folder: Path) -> tuple[list[Take], list[Rejected]]:
    """Read all recordings of a keyword below a folder; return the good ones, and the bad with the reasons.

    Raises RecordingsError where the folder is missing or empty, where more than a fifth of the recordings
    is bad, or where fewer than MIN_RECORDINGS are good.
    """
    files, others = find_audio(folder)
    if not files and not others:
        raise RecordingsError(f"{folder} holds no recordings: put one WAV or FLAC file per utterance into it")
    rejected = [
        Rejected(path, f"{path.suffix[1:]} files cannot be read: convert it to WAV or FLAC")
        for path in others
    ]
    takes: list[Take] = []
    seen: dict[str, Path] = {}
    for path in files:
        found = _read_take(path)
        if isinstance(found, Take):
            digest = hashlib.sha256(found.samples.tobytes()).hexdigest()
            if digest in seen:
                found = Rejected(path, f"it is the same recording as {seen[digest].name}")
            seen.setdefault(digest, path)
        if isinstance(found, Take):
            takes.append(found)
        else:
            rejected.append(found)
    count = len(takes) + len(rejected)
    if len(rejected) > max(1, _FEW_BAD * count):
        raise RecordingsError(
            f"{len(rejected)} of {count} recordings in {folder} cannot be used; mend or remove them:\n"
            + listed(rejected)
        )
    if len(takes) < MIN_RECORDINGS:
        raise RecordingsError(
            f"{folder} holds {len(takes)} usable recordings, and at least {MIN_RECORDINGS} are needed "
            f"({RECOMMENDED_RECORDINGS} or more, of as many people as can be, are recommended)"
            + (":\n" + listed(rejected) if rejected else "")
        )
    return takes, rejected


def listed(rejected: Iterable[Rejected]) -> str:
    """Return lines that name recordings and what is wrong with them; the first ten of many."""
    every = [f"  {r.path}: {r.reason}" for r in rejected]
    more = [f"  … and {len(every) - _LISTED} more"] if len(every) > _LISTED else []
    return "\n".join(every[:_LISTED] + more)


def _read_take(path: Path) -> Take | Rejected:
    try:
        seconds = soundfile.info(path).duration
        too_long = seconds > _LONGEST_S
        samples = np.zeros(0, np.float32) if too_long else read_audio(path)
    except (soundfile.LibsndfileError, CorpusError, OSError):
        return Rejected(path, "it is no audio file that can be read: convert it to WAV or FLAC")
    if too_long:
        return Rejected(path, f"it lasts {seconds:.0f} s: cut it into pieces of one utterance each, 1 to 3 s")
    word = None
    reason = _what_is_wrong(samples)
    if reason is None:
        word = locate_word(samples, SAMPLE_RATE_HZ)
        reason = _what_is_wrong_with_the_word(samples, word)
    return Take(path, samples, word) if word and not reason else Rejected(path, reason or "")


def _what_is_wrong(samples: NDArray[np.float32]) -> str | None:
    if len(samples) < _SHORTEST_S * SAMPLE_RATE_HZ:
        return f"it lasts {len(samples) / SAMPLE_RATE_HZ:.2f} s: too short for a word"
    if not np.isfinite(samples).all():
        return "it holds numbers that are no audio (not finite)"
    peak = float(np.abs(samples).max())
    if peak < _SILENT_PEAK:
        return "it is silent: check the microphone"
    return None


def _what_is_wrong_with_the_word(samples: NDArray[np.float32], word: tuple[int, int] | None) -> str | None:
    if word is None:
        return "no word stands out of its noise: record it closer to the microphone"
    if _is_clipped(samples[slice(*word)]):
        return "it is clipped (the waves are cut off at the top): record it at a lower level"
    seconds = (word[1] - word[0]) / SAMPLE_RATE_HZ
    if seconds > _LONGEST_WORD_S:
        return f"somebody speaks for {seconds:.1f} s in it: let it hold the keyword alone"
    return None


def _is_clipped(word: NDArray[np.float32]) -> bool:
    """Say whether waves are cut off: they stay at the top for samples in a row, where others touch it once.

    Of 795 unclipped recordings of two words none had more than a tenth of this share of such samples; cut
    off at a quarter of their peak all had more.
    """
    top = np.abs(word) >= _AT_THE_TOP * np.abs(word).max()
    return float((top[1:] & top[:-1]).mean()) > _CLIPPED_SHARE
