"""Recordings from files and raw audio from a pipe, read in blocks: never a whole long one in memory."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import soundfile

from earmark_client.audio import Encoding, frame_bytes, pcm_bytes
from earmark_client.errors import EarmarkError, RecordingError

if TYPE_CHECKING:
    from collections.abc import Iterator

_CONTAINERS = {b"RIFF": "WAV", b"fLaC": "FLAC", b"OggS": "Ogg", b"ID3\x03": "MP3", b"ID3\x04": "MP3"}

_FRAMES_UNKNOWN = 1 << 62  # libsndfile's SF_COUNT_MAX, and what comes near it


class Recording:
    """A sound file (WAV, FLAC, Ogg, MP3), to be streamed: iterating gives LINEAR16 blocks of `block_s`.

    Channels are mixed down to one by their mean; the rate stays the file's, `sample_rate_hz`. `duration_s`
    is what the file says of its length, None where it says nothing.
    RecordingError, with the file's name, when it cannot be opened or read.
    """

    encoding = Encoding.LINEAR16
    channels = 1

    def __init__(self, path: str | os.PathLike[str], *, block_s: float = 1.0) -> None:
        self.path = Path(path)
        self._block_s = block_s
        try:
            # Opened here, not by libsndfile, whose own words for a missing file are "System error".
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
                f"{self.path}: not a recording that can be read (WAV, FLAC, Ogg and MP3 can): {_why(error)}"
            ) from error
        except RecordingError:
            self._file.close()
            raise
        self.sample_rate_hz: int = self._sound.samplerate
        known = 0 <= self._sound.frames < _FRAMES_UNKNOWN
        self.duration_s: float | None = self._sound.frames / self.sample_rate_hz if known else None
        # A stream that ends early may leave a thread reading; libsndfile must not be closed under it.
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; whoever still reads it finds its end."""
        with self._lock:
            self._sound.close()
            self._file.close()

    def __iter__(self) -> Iterator[bytes]:
        block_samples = max(1, round(self._block_s * self.sample_rate_hz))
        anything = False
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
            anything = True
            mono = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1, dtype=np.float32)
            try:
                yield pcm_bytes(mono, self.encoding)
            except EarmarkError as error:
                raise RecordingError(f"{self.path}: {error}", reason=error.reason) from error
        if not anything:
            raise RecordingError(f"{self.path}: the recording holds no audio")


class RawPipe:
    """Raw samples from a file descriptor, such as standard input, as they come."""

    def __init__(
        self,
        descriptor: int,
        *,
        sample_rate_hz: int,
        encoding: Encoding,
        channels: int,
        block_s: float = 1.0,
    ) -> None:
        self.sample_rate_hz = sample_rate_hz
        self.encoding = encoding
        self.channels = channels
        self._descriptor = descriptor
        self._block_bytes = max(1, round(block_s * sample_rate_hz)) * frame_bytes(encoding, channels)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the descriptor open: it is its owner's."""

    def __iter__(self) -> Iterator[bytes]:
        if os.isatty(self._descriptor):
            raise RecordingError(
                "standard input is a terminal: pipe raw samples into it, or give a file's name"
            )
        anything = False
        while data := self._read():
            if not anything and (container := _CONTAINERS.get(data[:4])):
                raise RecordingError(
                    f"standard input holds a {container} file: `-` takes raw samples; give the file's name"
                )
            anything = True
            yield data
        if not anything:
            raise RecordingError("standard input holds no audio")

    def _read(self) -> bytes:
        try:
            # Not sys.stdin: its lock would be held by a thread still reading when the program ends.
            return os.read(self._descriptor, self._block_bytes)
        except OSError as error:
            raise RecordingError(f"standard input cannot be read: {error.strerror}") from error


def paced(source: Recording | RawPipe) -> Iterator[bytes]:
    """Give a source's blocks at its own pace: each when its last sample would have been spoken."""
    bytes_per_s = frame_bytes(source.encoding, source.channels) * source.sample_rate_hz
    start_s, given_bytes = time.monotonic(), 0
    for block in source:
        given_bytes += len(block)
        time.sleep(max(0.0, start_s + given_bytes / bytes_per_s - time.monotonic()))
        yield block


def _why(error: Exception) -> str:
    text = getattr(error, "error_string", None) or str(error)
    return text.strip().rstrip(".")
