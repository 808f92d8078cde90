"""Recordings, read from sound files in blocks, so that a long one is never in memory as a whole."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import soundfile

from earmark_client.audio import Encoding, pcm_bytes
from earmark_client.errors import EarmarkError, RecordingError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

_FRAMES_UNKNOWN = 1 << 62  # libsndfile gives SF_COUNT_MAX, or a number close to it


class Recording:
    """A sound file (WAV, FLAC, Ogg, MP3): an iterable of LINEAR16 blocks of `block_s`, one channel.

    Channels are averaged into one. `sample_rate_hz` is the file's. `duration_s` is the length that the
    file states, None if it states none. Raises RecordingError, with the file's name, if the file cannot
    be opened or read.
    """

    encoding = Encoding.LINEAR16
    channels = 1

    def __init__(self, path: str | os.PathLike[str], *, block_s: float = 1.0) -> None:
        self.path = Path(path)
        self._block_s = block_s
        try:
            # Opened here, because libsndfile reports a missing file as "System error".
            self._file = self.path.open("rb")
        except OSError as error:
            raise RecordingError(f"{self.path}: {error.strerror or error}") from error
        try:
            if not self._file.read(1):
                raise RecordingError(f"{self.path}: the file is empty")
            self._file.seek(0)
            self._sound: Any = soundfile.SoundFile(self._file)
        except (soundfile.LibsndfileError, OSError, TypeError) as error:
            self._file.close()
            raise RecordingError(
                f"{self.path}: not a recording in a supported format (WAV, FLAC, Ogg or MP3): {_why(error)}"
            ) from error
        except RecordingError:
            self._file.close()
            raise
        self.sample_rate_hz: int = self._sound.samplerate
        known = 0 <= self._sound.frames < _FRAMES_UNKNOWN
        self.duration_s: float | None = self._sound.frames / self.sample_rate_hz if known else None
        # After a stream that ended early, a thread may still read while the file is closed.
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; an iterator over it ends."""
        with self._lock:
            self._sound.close()
            self._file.close()

    def __iter__(self) -> Iterator[bytes]:
        block_samples = max(1, round(self._block_s * self.sample_rate_hz))
        has_audio = False
        while True:
            try:
                with self._lock:
                    if self._sound.closed:
                        return
                    samples = self._sound.read(
                        block_samples, dtype="float32", always_2d=True
                    )  # [n, channels]
            except (soundfile.LibsndfileError, OSError) as error:
                raise RecordingError(f"{self.path}: the recording is damaged: {_why(error)}") from error
            if not len(samples):
                break
            has_audio = True
            mono = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1, dtype=np.float32)
            try:
                yield pcm_bytes(mono, self.encoding)
            except EarmarkError as error:
                raise RecordingError(f"{self.path}: {error}", reason=error.reason) from error
        if not has_audio:
            raise RecordingError(f"{self.path}: the recording contains no audio")


def _why(error: Exception) -> str:
    text = getattr(error, "error_string", None) or str(error)
    return text.strip().rstrip(".")
