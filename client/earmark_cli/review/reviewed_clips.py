"""The clips of a folder that `--clips` has written, and what a person said of each."""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import soundfile
from earmark_audio.json_text import json_text
from earmark_client.audio import Encoding, pcm_bytes
from earmark_client.audio_clip import AudioClip
from earmark_client.errors import InvalidRequestError, RecordingError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_MARGIN_S = 0.4
_MAX_S = 1e9

Verdict = Literal["right", "wrong", "missed"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
"""`missed`: the keyword was spoken, and is detected only with a lowered threshold."""


@dataclass
class Clip:
    """A WAV file, and the content of the JSON file beside it."""

    path: Path
    fields: dict[str, Any]

    @property
    def keyword(self) -> str:
        """The keyword that was detected."""
        return str(self.fields.get("keyword"))

    @property
    def verdict(self) -> Verdict | None:
        """What a person said, None if nothing yet."""
        verdict = self.fields.get("verdict")
        return verdict if verdict in VERDICTS else None

    def judge(self, verdict: Verdict | None) -> None:
        """Write a verdict to the JSON file, at once and as a whole. Raises RecordingError."""
        self.fields["verdict"] = verdict
        file = self.path.with_suffix(".json")
        part = self.path.with_suffix(".json.part")
        try:
            part.write_text(json_text(self.fields) + "\n", encoding="utf-8")
            part.rename(file)
        except OSError as error:
            with suppress(OSError):
                part.unlink()
            raise RecordingError(f"{file} cannot be written: {error.strerror}") from error


def write_missed(clips: Sequence[Clip], folder: Path) -> None:
    """Write the words of the clips that are marked as missed, each with a margin, at 16 bits.

    If the clips are of several keywords, the words of each are in a folder of its name, as the training of
    several keywords expects it.

    A file that exists stays as it is. Raises RecordingError if its content is not that of the word, after all
    other files are written, and if a clip cannot be read or a file cannot be written.
    """
    others = []
    has_several = len({clip.keyword for clip in clips}) > 1
    for clip in clips:
        if clip.verdict == "missed":
            of_keyword = folder / _folder_name(clip.keyword) if has_several else folder
            path, data = of_keyword / clip.path.name, _word(clip).wav()
            try:
                of_keyword.mkdir(parents=True, exist_ok=True)
                if not _write_new(path, data) and path.read_bytes() != data:
                    others.append(path)
            except OSError as error:
                raise RecordingError(f"{path} cannot be written: {error.strerror}") from error
    if others:
        raise RecordingError(
            f"{folder}: files with another content were not overwritten: {len(others)}, the first is "
            f"{others[0].relative_to(folder)}: delete them, or give another folder"
        )


def _folder_name(keyword: str) -> str:
    """Return the name of the folder of a keyword's recordings, which is always one within another folder."""
    name = re.sub(r"[/\0]", "-", keyword.encode(errors="replace").decode())
    return name if name.strip(".") else "-"


def _word(clip: Clip) -> AudioClip:
    """Return the word of a clip with its margin."""
    try:
        # Not as int16: libsndfile would not scale the samples of a float file.
        samples, rate_hz = soundfile.read(clip.path, dtype="float64", always_2d=True)
        offset_s = clip.fields.get("clip_start_s", 0.0)
        first = max(0, round((clip.fields["start_s"] - offset_s - _MARGIN_S) * rate_hz))
        last = round((clip.fields["end_s"] - offset_s + _MARGIN_S) * rate_hz)
        if first >= len(samples):
            raise RecordingError(f"{clip.path} ends before the word that was missed: delete it")
        channels = samples.shape[1]
        data = pcm_bytes(samples[first:last], Encoding.LINEAR16, channels)
    except (OSError, soundfile.LibsndfileError, InvalidRequestError) as error:
        raise RecordingError(f"{clip.path} cannot be read: {error}") from error
    return AudioClip(0.0, data, rate_hz, channels=channels)


def _write_new(path: Path, data: bytes) -> bool:
    """Write a file, and return True, unless there is one of that name."""
    try:
        file = path.open("xb")
    except FileExistsError:
        return False
    try:
        with file:
            file.write(data)
    except OSError:
        path.unlink()
        raise
    return True


def _is_clip(fields: dict[str, Any]) -> bool:
    numbers = [fields.get(name) for name in ("confidence", "start_s", "end_s")]
    numbers.append(fields.get("clip_start_s", 0.0))
    is_place = all(isinstance(one, int | float) and abs(one) <= _MAX_S for one in numbers)  # NaN is not
    return bool(fields.get("type") == "clip" and is_place and fields["start_s"] < fields["end_s"])


def read_clips(folder: Path) -> list[Clip]:
    """Return the clips of a folder in the order of their names. Raises RecordingError if there are none."""
    clips = []
    try:
        files = sorted(folder.glob("*.json"))
    except OSError as error:
        raise RecordingError(f"{folder} cannot be read: {error.strerror}") from error
    for file in files:
        path = file.with_suffix(".wav")
        if not os.path.isfile(file):
            continue  # opening a named pipe waits for a writer
        try:
            fields = json.loads(file.read_bytes())
        except (OSError, ValueError, RecursionError):
            continue
        if os.path.isfile(path) and isinstance(fields, dict) and _is_clip(fields):
            clips.append(Clip(path, fields))
    if not clips:
        raise RecordingError(f"{folder}: contains no clips: `earmark listen --clips {folder}` writes them")
    return clips
