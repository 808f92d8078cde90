"""Clips that a person has reviewed with `earmark review`: false alarms, and words that were missed."""

from __future__ import annotations

import io
import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import soundfile

from earmark_training.data.corpus import SAMPLE_RATE_HZ, SourceFile
from earmark_training.errors import CorpusError
from earmark_training.keyword.recordings import RecordingsError
from earmark_training.output_files import replace_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

log = logging.getLogger(__name__)

_MISSED_MARGIN_S = 0.4
_MAX_S = 1e9


@dataclass(frozen=True, slots=True)
class ReviewedClip:
    """A clip of a detection that was wrong, or of a word that was missed, and the word's place in it."""

    path: Path
    keyword: str
    is_missed: bool
    start_s: float
    end_s: float

    @property
    def source(self) -> SourceFile:
        """The clip as a false alarm, to be decoded."""
        return SourceFile(self.path, "speech", "training", "", f"mistake {self.path.stem}")

    @property
    def word(self) -> tuple[int, int]:
        """Start and end of the word in samples of 16 kHz."""
        return round(self.start_s * SAMPLE_RATE_HZ), round(self.end_s * SAMPLE_RATE_HZ)


def read_mistakes(folders: Sequence[Path], keywords: Sequence[str]) -> list[ReviewedClip]:
    """Return the clips of the keywords in the folders that are marked as wrong or as missed.

    Raises RecordingsError for a folder without such clips, or if all of them are of other keywords.
    """
    found: list[ReviewedClip] = []
    for folder in folders:
        mistakes = list(_mistakes_in(folder))
        if not mistakes:
            raise RecordingsError(
                f"{folder} contains no clips that are marked as wrong or missed: `earmark review {folder}` "
                "marks them"
            )
        found += mistakes
    own = [clip for clip in found if clip.keyword in keywords]
    others = sorted({clip.keyword for clip in found} - set(keywords))
    if found and not own:
        raise RecordingsError(
            f"the clips of --mistakes are of other keywords ({', '.join(map(repr, others))}): name "
            f"folders with clips of {' or '.join(map(repr, keywords))}"
        )
    if others:
        log.info(
            "clips of --mistakes that are ignored, since they are of other keywords (%s): %d",
            ", ".join(map(repr, others)),
            len(found) - len(own),
        )
    return own


def _mistakes_in(folder: Path) -> Iterator[ReviewedClip]:
    for path in sorted(folder.glob("*.json")):
        if not path.is_file():
            continue  # opening a named pipe waits for a writer
        try:
            clip = json.loads(path.read_bytes())
            verdict = clip.get("verdict")
            if clip["type"] != "clip" or verdict not in {"wrong", "missed"}:
                continue
            start_s, end_s, offset_s = (float(clip[n]) for n in ("start_s", "end_s", "clip_start_s"))
            keyword = str(clip["keyword"])
        except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
            continue
        audio = path.with_suffix(".wav")
        start_s, end_s = max(0.0, start_s - offset_s), end_s - offset_s
        if audio.is_file() and start_s < end_s <= _MAX_S:
            yield ReviewedClip(audio, keyword, verdict == "missed", start_s, end_s)


def write_missed_words(mistakes: Sequence[ReviewedClip], keyword: str, folder: Path) -> list[Path]:
    """Write the words of a keyword that were missed to a folder, one file each, with a margin.

    Raises CorpusError for a clip that cannot be read, and OutputError for a file that cannot be written.
    """
    folder.mkdir(parents=True)
    paths: list[Path] = []
    for clip in mistakes:
        if clip.is_missed and clip.keyword == keyword:
            try:
                # As float32: samples of a file in floating point are cut off when they are read as int16.
                samples, rate_hz = soundfile.read(clip.path, dtype="float32", always_2d=True)
            except (OSError, soundfile.LibsndfileError) as error:
                raise CorpusError(f"{clip.path} cannot be read: {error}") from error
            first = max(0, round((clip.start_s - _MISSED_MARGIN_S) * rate_hz))
            last = round((clip.end_s + _MISSED_MARGIN_S) * rate_hz)
            content, file_format = io.BytesIO(), clip.path.suffix[1:]
            piece = samples[first:last].clip(-1, 1)
            soundfile.write(content, piece, rate_hz, format=file_format, subtype="PCM_16")
            paths.append(folder / f"{len(paths):05d}-{clip.path.name}")
            replace_file(paths[-1], content.getbuffer())
    return paths
