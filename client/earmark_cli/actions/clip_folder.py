"""A folder of clips: for each detection a WAV file, and beside it a JSON file of one line."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from earmark_client.errors import RecordingError

from earmark_cli.output.files import reserve
from earmark_cli.output.printer import detection_fields

if TYPE_CHECKING:
    from earmark_client.audio_clip import AudioClip
    from earmark_client.events import Detection

_MAX_SOURCE_LENGTH = 60
_MAX_KEYWORD_LENGTH = 40


class ClipFolder:
    """Names and writes clips. Raises RecordingError if the folder cannot be created.

    Names begin with the time at which the run began. No clip overwrites another one, not even one of another
    process.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self._begin = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RecordingError(f"{folder} cannot be created: {error.strerror}") from error

    def path(self, source: str, detection: Detection) -> Path:
        """Reserve a new path for the WAV file of a detection, and return it. Raises OSError."""
        file, channel = _split_channel(source)
        stem = _safe("stdin" if file == "-" else Path(file).stem, _MAX_SOURCE_LENGTH)
        keyword = _safe(detection.keyword, _MAX_KEYWORD_LENGTH)
        name = f"{self._begin}-{stem}{channel}-{detection.start_s:09.3f}-{keyword}"
        return reserve(
            lambda number: self.folder / (f"{name}.wav" if number == 1 else f"{name}-{number}.wav")
        )

    @staticmethod
    def write(path: Path, source: str, detection: Detection, clip: AudioClip) -> None:
        """Write a clip to a reserved path; its WAV file appears last, and complete. Raises OSError."""
        line = {
            "type": "clip",
            "file": path.name,
            "source": source,
            **detection_fields(detection),
            "clip_start_s": round(clip.start_s, 4),
            "clip_end_s": round(clip.end_s, 4),
        }
        description, part = path.with_suffix(".json"), path.with_suffix(".part")
        try:
            description.write_text(json.dumps(line) + "\n", encoding="utf-8")
            part.write_bytes(clip.wav())
            part.rename(path)
        except OSError:
            for file in (description, part):
                with suppress(OSError):
                    file.unlink()
            raise


def _split_channel(source: str) -> tuple[str, str]:
    """Return the file of a source, and what the names of its clips say of its channel."""
    found = re.fullmatch(r"(.*) \(channel (\d+)\)", source, re.DOTALL)
    return (source, "") if found is None else (found[1], f"_channel_{found[2]}")


def _safe(text: str, longest: int) -> str:
    """Return a text that is safe within the name of a file, on every system."""
    return re.sub(r"[^\w.]+", "_", text, flags=re.ASCII)[:longest] or "_"
