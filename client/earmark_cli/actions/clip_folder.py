"""A folder of clips: for each detection a WAV file, and beside it a JSON file of one line."""

from __future__ import annotations

import os
import re
import threading
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from earmark_audio.json_text import json_text
from earmark_client.errors import RecordingError

from earmark_cli.interrupts import termination_deferred
from earmark_cli.output.files import reserve
from earmark_cli.output.printer import detection_fields, with_bytes

if TYPE_CHECKING:
    from earmark_client.audio_clip import AudioClip
    from earmark_client.events import Detection

_MAX_SOURCE_LENGTH = 60
_MAX_KEYWORD_LENGTH = 40


class ClipFolder:
    """Names and writes clips. Raises RecordingError if the folder cannot be created.

    Names begin with the time at which the run began. No clip overwrites another one, not even one of another
    process. Any thread may call the methods, and a signal handler `release`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self._reserved: set[Path] = set()
        # Reentrant, because a signal may arrive while the same thread writes a clip.
        self._lock = threading.RLock()
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
        with self._lock, termination_deferred():
            path = reserve(
                lambda number: self.folder / (f"{name}.wav" if number == 1 else f"{name}-{number}.wav")
            )
            self._reserved.add(path)
        return path

    def write(self, path: Path, source: str, detection: Detection, clip: AudioClip) -> None:
        """Write a clip to a reserved path; its WAV file appears last, and complete. Raises OSError.

        Writes nothing to a path that has been released.
        """
        line = {
            "type": "clip",
            "file": path.name,
            "source": source,
            **detection_fields(detection),
            "clip_start_s": round(clip.start_s, 4),
            "clip_end_s": round(clip.end_s, 4),
        }
        part = path.with_suffix(".part")
        with self._lock:
            if path not in self._reserved:
                return
            try:
                path.with_suffix(".json").write_text(json_text(with_bytes(line)) + "\n", encoding="utf-8")
                part.write_bytes(clip.wav())
                part.rename(path)
            finally:
                self._release(path)

    def release(self) -> None:
        """Release all reserved paths to which no clip has been written: remove what reserves them."""
        with self._lock:
            for path in list(self._reserved):
                self._release(path)

    def _release(self, path: Path) -> None:
        self._reserved.discard(path)
        if not os.path.exists(path):
            for suffix in (".json", ".part"):
                with suppress(OSError):
                    path.with_suffix(suffix).unlink()


def _split_channel(source: str) -> tuple[str, str]:
    """Return the file of a source, and what the names of its clips say of its channel."""
    found = re.fullmatch(r"(.*) \(channel (\d+)\)", source, re.DOTALL)
    return (source, "") if found is None else (found[1], f"_channel_{found[2]}")


def _safe(text: str, longest: int) -> str:
    """Return a text that is safe within the name of a file, on every system."""
    return re.sub(r"[^\w.]+", "_", text, flags=re.ASCII)[:longest] or "_"
