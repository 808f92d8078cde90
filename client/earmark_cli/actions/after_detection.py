"""Recordings of the audio right after a detection, for a speech recognizer for example."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from earmark_client.audio import Silence
from earmark_client.audio_clip import RecentAudio

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from earmark_client.audio import AudioFormat
    from earmark_client.events import Detection

    from earmark_cli.actions.clip_folder import ClipFolder


class AfterDetection:
    """Writes `length_s` of audio from the end of each detection on, as soon as the source has yielded it.

    `record` runs on another thread than the other methods.
    """

    def __init__(self, folder: ClipFolder, length_s: float, source: str, audio_format: AudioFormat) -> None:
        self._folder = folder
        self._length_s = length_s
        self._source = source
        self._format = audio_format
        self._recent = RecentAudio(audio_format)
        self._decided_s = 0.0
        self._pending: list[tuple[Path, Detection]] = []
        self._messages: list[str] = []
        self._lock = threading.Lock()

    def record(self, blocks: Iterable[bytes | Silence]) -> Iterator[bytes | Silence]:
        """Keep the blocks that a detection may still need, and yield them unchanged."""
        for block in blocks:
            with self._lock:
                self._recent.append(
                    self._format.byte_offset(block.seconds) if isinstance(block, Silence) else block
                )
                self._write_complete()
            yield block

    def add(self, detection: Detection) -> Path | None:
        """Record the audio after a detection; return where the file will appear, None if it cannot."""
        with self._lock:
            try:
                path = self._folder.path(self._source, detection)
            except OSError as error:
                self._report(error)
                return None
            self._pending.append((path, detection))
            self._write_complete()
        return path

    def discard_before(self, decided_s: float) -> None:
        """Discard the audio before an offset, after which all further detections end.

        The source may be read minutes ahead of that: its audio is kept until a broken stream has resumed.
        """
        with self._lock:
            self._decided_s = decided_s
            self._discard()

    def end(self) -> None:
        """Write all recordings, as far as there is audio for them."""
        with self._lock:
            self._write_complete(at_end=True)

    def messages(self) -> list[str]:
        """Return the messages since the last call: files that could not be written."""
        with self._lock:
            messages, self._messages = self._messages, []
        return messages

    def _write_complete(self, *, at_end: bool = False) -> None:
        pending, self._pending = self._pending, []
        for path, detection in pending:
            end_s = detection.end_s + self._length_s
            if self._recent.end_s < end_s and not at_end:
                self._pending.append((path, detection))
                continue
            try:
                self._folder.write(path, self._source, detection, self._recent.clip(detection.end_s, end_s))
            except OSError as error:
                self._report(error)
        self._discard()

    def _report(self, error: OSError) -> None:
        self._messages.append(f"{self._folder.folder}: a file cannot be written: {error.strerror}")

    def _discard(self) -> None:
        needed_s = (detection.end_s for _, detection in self._pending)
        self._recent.discard_before(min([self._decided_s, *needed_s]))
