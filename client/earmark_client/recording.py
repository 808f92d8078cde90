"""Recordings, read from sound files in blocks, so that a long one is never in memory as a whole."""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Self

import numpy as np
from earmark_audio import AudioFileError, Notice, RecordingFile

from earmark_client.audio import Encoding, pcm_bytes
from earmark_client.errors import RecordingError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from earmark_audio import Pipe
    from numpy.typing import NDArray


class Recording:
    """A sound file: an iterable of LINEAR16 blocks of `block_s`, one channel.

    WAV, RF64, Wave64, AIFF, AU, CAF, FLAC, Ogg (Vorbis, Opus) and MP3 are read, and what FFmpeg reads (M4A,
    WebM, AAC and others) where the extra `formats` or the program `ffmpeg` is installed.

    path: the file's path, or an open binary file such as `sys.stdin.buffer`, which is left open. WAV, RF64
        and Wave64 from a pipe are read as they come, in blocks of at most 4096 samples.
    channel: the channel to read, 1 for the first; None averages all of them into one.
    name: the file's name in messages, instead of its path.

    `sample_rate_hz` and `file_channels` are the file's. `duration_s` is the length that the file states, None
    if it states none.
    `is_live`: the blocks come as they are recorded. `notices` is complete after the last block: what is
    unusual about the file. Raises RecordingError, with
    the file's name, if the file cannot be opened or read; of a file that is truncated or damaged, after all
    blocks that could be decoded.
    """

    encoding = Encoding.LINEAR16
    channels = 1

    def __init__(
        self,
        path: str | os.PathLike[str] | BinaryIO | Pipe,
        *,
        block_s: float = 1.0,
        channel: int | None = None,
        name: str | None = None,
    ) -> None:
        source = recording_path(path) if isinstance(path, str | os.PathLike) else path
        self.path = source if name is None and isinstance(source, Path) else Path(name or "recording")
        self._block_s = block_s
        self._channel = channel
        try:
            self._file = RecordingFile(source)
        except (OSError, ValueError) as error:
            # ValueError: a path with a null character, or a file that is closed.
            raise RecordingError(f"{self.path}: {getattr(error, 'strerror', None) or error}") from error
        except AudioFileError as error:
            raise self._named(error) from error
        self.sample_rate_hz = self._file.sample_rate_hz
        self.file_channels = self._file.channels
        self.duration_s = self._file.declared_s
        self.format = str(self._file.format)
        self.is_live = self._file.is_live
        # After a stream that ended early, a thread may still read while the file is closed.
        self._lock = threading.Lock()
        self._is_closed = False
        self._is_read = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def notices(self) -> tuple[Notice, ...]:
        """What is unusual about the file, so far."""
        return tuple(self._file.notices)

    def close(self) -> None:
        """Close the file; an iterator over it ends."""
        self._is_closed = True
        # A thread that waits for a pipe holds the lock, and closes the file when something comes.
        if self._lock.acquire(blocking=not self.is_live):
            self._file.close()
            self._lock.release()

    def __iter__(self) -> Iterator[bytes]:
        if self._is_read:
            raise RecordingError(f"{self.path}: a Recording can be read only once: open another one")
        self._is_read = True
        block_samples = max(1, round(self._block_s * self.sample_rate_hz))
        decoded: list[NDArray[np.float32]] = []
        decoded_samples = 0
        blocks = self._file.mono(self._channel)
        problem: RecordingError | None = None
        while problem is None:
            try:
                with self._lock:
                    block = None if self._is_closed else next(blocks, None)
                    if self._is_closed:
                        self._file.close()
                        return
            except AudioFileError as error:
                problem = self._named(error)
                problem.__cause__ = error
                break
            except OSError as error:
                problem = RecordingError(f"{self.path} cannot be read: {error.strerror or error}")
                problem.__cause__ = error
                break
            if block is None:
                break
            if self.is_live:
                yield pcm_bytes(block, self.encoding)
                continue
            decoded.append(block)
            decoded_samples += len(block)
            while decoded_samples >= block_samples:
                joined = np.concatenate(decoded)
                yield pcm_bytes(joined[:block_samples], self.encoding)
                decoded = [joined[block_samples:]]
                decoded_samples -= block_samples
                if self._is_closed:
                    return
        if decoded_samples:
            yield pcm_bytes(np.concatenate(decoded), self.encoding)
        if problem is not None:
            raise problem

    def _named(self, error: AudioFileError) -> RecordingError:
        message = str(error)
        return RecordingError(
            f"{self.path}: {message[0].lower()}{message[1:].rstrip('.')}", reason=error.reason
        )


def recording_path(path: str | os.PathLike[str]) -> Path:
    """Return the path of a recording. Raises RecordingError for a web address, and for an empty name."""
    name = os.fspath(path)
    if not name:
        raise RecordingError("the name of a recording is empty")
    if re.match(r"\w+://", name):
        raise RecordingError(f"{name}: this is a web address: download the recording, and give the file")
    return Path(name)
