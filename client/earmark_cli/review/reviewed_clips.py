"""The clips of a folder that `--clips` has written, and what a person said of each."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import soundfile
from earmark_client.errors import RecordingError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_MARGIN_S = 0.4

Verdict = Literal["right", "wrong", "missed"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
"""`missed`: the keyword was spoken, and is detected only with a lowered threshold."""


@dataclass
class Clip:
    """A WAV file, and the content of the JSON file beside it."""

    path: Path
    fields: dict[str, Any]

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
            part.write_text(json.dumps(self.fields) + "\n", encoding="utf-8")
            part.rename(file)
        except OSError as error:
            raise RecordingError(f"{file} cannot be written: {error.strerror}") from error


def write_missed(clips: Iterable[Clip], folder: Path) -> None:
    """Write the words of the clips that are marked as missed, each with a margin. Raises RecordingError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for clip in clips:
            if clip.verdict == "missed":
                samples, rate_hz = soundfile.read(clip.path, dtype="int16", always_2d=True)
                offset_s = clip.fields.get("clip_start_s", 0.0)
                first = max(0, round((clip.fields["start_s"] - offset_s - _MARGIN_S) * rate_hz))
                last = round((clip.fields["end_s"] - offset_s + _MARGIN_S) * rate_hz)
                soundfile.write(folder / clip.path.name, samples[first:last], rate_hz)
    except (OSError, soundfile.LibsndfileError) as error:
        raise RecordingError(f"{folder} cannot be written: {error}") from error


def _is_clip(fields: dict[str, Any]) -> bool:
    numbers = (fields.get("confidence"), fields.get("start_s"), fields.get("end_s"))
    return fields.get("type") == "clip" and all(isinstance(one, int | float) for one in numbers)


def read_clips(folder: Path) -> list[Clip]:
    """Return the clips of a folder in the order of their names. Raises RecordingError if there are none."""
    clips = []
    for file in sorted(folder.glob("*.json")):
        path = file.with_suffix(".wav")
        try:
            fields = json.loads(file.read_bytes())
        except (OSError, ValueError, RecursionError):
            continue
        if path.is_file() and isinstance(fields, dict) and _is_clip(fields):
            clips.append(Clip(path, fields))
    if not clips:
        raise RecordingError(f"{folder}: contains no clips: `earmark listen --clips {folder}` writes them")
    return clips
