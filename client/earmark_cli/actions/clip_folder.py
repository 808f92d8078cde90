"""A folder of clips: for each detection a WAV file, and beside it a JSON file of one line."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from earmark_client.errors import RecordingError

from earmark_cli.output.printer import detection_fields

if TYPE_CHECKING:
    from earmark_client.audio_clip import AudioClip
    from earmark_client.events import Detection

_MAX_SOURCE_LENGTH = 60
_MAX_KEYWORD_LENGTH = 40


class ClipFolder:
    """Names and writes clips. Raises RecordingError if the folder cannot be created.

    Names begin with the time at which the run began, so that runs do not overwrite each other's files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()
        self._begin = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        self._names: set[str] = set()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RecordingError(f"{folder} cannot be created: {error.strerror}") from error

    def path(self, source: str, detection: Detection) -> Path:
        """Return a new path for the WAV file of a detection."""
        stem = _safe("stdin" if source == "-" else Path(source).stem, _MAX_SOURCE_LENGTH)
        keyword = _safe(detection.keyword, _MAX_KEYWORD_LENGTH)
        first = name = f"{self._begin}-{stem}-{detection.start_s:09.3f}-{keyword}"
        number = 1
        while name in self._names or (self._folder / f"{name}.wav").exists():
            number += 1
            name = f"{first}-{number}"
        self._names.add(name)
        return self._folder / f"{name}.wav"

    @staticmethod
    def write(path: Path, source: str, detection: Detection, clip: AudioClip) -> None:
        """Write a clip and its JSON line; the WAV file appears last, and complete. Raises OSError."""
        line = {
            "type": "clip",
            "file": path.name,
            "source": source,
            **detection_fields(detection),
            "clip_start_s": round(clip.start_s, 4),
            "clip_end_s": round(clip.end_s, 4),
        }
        path.with_suffix(".json").write_text(json.dumps(line) + "\n", encoding="utf-8")
        part = path.with_suffix(".part")
        part.write_bytes(clip.wav())
        part.rename(path)


def _safe(text: str, longest: int) -> str:
    """Return a text that is safe within the name of a file, on every system."""
    return re.sub(r"[^\w.]+", "_", text, flags=re.ASCII)[:longest] or "_"
