"""Keeping what was heard: a WAV file with its detections as cue points, and labels for Audacity beside it.

The chunks `cue ` and `LIST adtl` are those of the RIFF specification of 1991 (Microsoft, IBM: "Multimedia
Programming Interface and Data Specifications 1.0"), the labels Audacity's: start, end and text by tabs.
"""

from __future__ import annotations

import struct
import threading
from typing import IO, TYPE_CHECKING, Self

from earmark_client.audio import Silence
from earmark_client.errors import RecordingError

from earmark_cli.output.printer import notice

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from earmark_client.events import Detection

_SAMPLE_BYTES = 2
_HEADER_BYTES = 44
# RIFF counts in 32 bits; what is left is room for the detections.
_MOST_BYTES = (1 << 32) - (1 << 24)


class Keeper:
    """Writes 16-bit mono audio and detections as they come, as long as its context.

    What cannot be written (a full disk, 4 GiB) ends the keeping with a notice, and not the listening;
    what was written by then stays a good file, as it does when the process dies. RecordingError when the
    files exist already, or cannot be made.
    """

    def __init__(self, path: Path, *, sample_rate_hz: int) -> None:
        if path.suffix.lower() != ".wav":
            raise RecordingError(f"{path}: what was heard is kept as WAV: give a name that ends in .wav")
        self.path, self.labels_path = path, path.with_suffix(".txt")
        self._rate_hz = sample_rate_hz
        self._detections: list[Detection] = []
        self._written = 0
        self._lock = threading.Lock()  # the audio comes on a thread of its own
        self._audio: IO[bytes] = _create(self.path)
        try:
            self._labels: IO[bytes] = _create(self.labels_path)
        except RecordingError:
            self._audio.close()
            self.path.unlink()
            raise
        self._open = True
        with self._lock:
            self._try(self._write_header)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._end()

    def watch(self, blocks: Iterable[bytes | Silence]) -> Iterator[bytes | Silence]:
        """Give the blocks on, having kept them; a silence is kept as so much of it."""
        for block in blocks:
            with self._lock:
                if isinstance(block, Silence):
                    frames = round(block.seconds * self._rate_hz)
                    for start in range(0, frames, self._rate_hz):
                        self._keep(bytes(_SAMPLE_BYTES * min(self._rate_hz, frames - start)))
                else:
                    self._keep(block)
            yield block

    def take(self, detection: Detection) -> None:
        """Keep a detection."""
        with self._lock:
            self._detections.append(detection)
            line = f"{detection.start_s:.3f}\t{detection.end_s:.3f}\t{_label(detection)}\n"
            self._try(lambda: _put(self._labels, line.encode()))

    def _keep(self, data: bytes) -> None:
        if self._written + len(data) > _MOST_BYTES:
            self._give_up("a WAV file holds no more than 4 GiB")
            return
        self._try(lambda: self._append(data))

    def _append(self, data: bytes) -> None:
        _put(self._audio, data)
        self._written += len(data)
        # At once, so that the file is whole whenever the process may die.
        self._write_header()

    def _write_header(self, more_bytes: int = 0) -> None:
        self._audio.seek(0)
        _put(self._audio, _header(self._rate_hz, self._written, more_bytes))
        self._audio.seek(_HEADER_BYTES + self._written)

    def _try(self, write: Callable[[], None]) -> None:
        if not self._open:
            return
        try:
            write()
        except OSError as error:
            self._give_up(error.strerror or str(error))

    def _give_up(self, reason: str) -> None:
        if self._open:
            kept_s = self._written / _SAMPLE_BYTES / self._rate_hz
            self._end()
            notice(
                f"earmark: {self.path}: {reason}: nothing is kept after {kept_s:.1f} s; the listening goes on"
            )

    def _end(self) -> None:
        """Put the cue points behind the audio where there is room, and let go of the files."""
        if not self._open:
            return
        self._open = False
        try:
            self._audio.truncate(_HEADER_BYTES + self._written)
            chunks = _cue_chunks(self._detections, self._rate_hz) if self._detections else b""
            self._audio.seek(_HEADER_BYTES + self._written)
            _put(self._audio, chunks)
            self._write_header(len(chunks))
        except OSError:
            pass  # the header still says what was written before
        for file in (self._audio, self._labels):
            file.close()


def _create(path: Path) -> IO[bytes]:
    try:
        # Unbuffered: what could not be written must not come back when the file is closed.
        return path.open("xb", buffering=0)
    except FileExistsError:
        raise RecordingError(f"{path} exists already: give --record another name") from None
    except OSError as error:
        raise RecordingError(f"{path} cannot be written: {error.strerror}") from error


def _put(file: IO[bytes], data: bytes) -> None:
    """Write all of it; a disk that fills up takes a part, and refuses the rest."""
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]


def _label(detection: Detection) -> str:
    return f"{detection.keyword} {detection.confidence:.2f}"


def _header(rate_hz: int, data_bytes: int, more_bytes: int) -> bytes:
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate_hz, rate_hz * _SAMPLE_BYTES, _SAMPLE_BYTES, 16)
    riff_bytes = _HEADER_BYTES - 8 + data_bytes + more_bytes
    return (
        struct.pack("<4sI4s", b"RIFF", riff_bytes, b"WAVE") + form + struct.pack("<4sI", b"data", data_bytes)
    )


def _cue_chunks(detections: list[Detection], rate_hz: int) -> bytes:
    """Write a cue point where each word starts, with its label and its length."""
    points, labels, lengths = b"", b"", b""
    for number, detection in enumerate(detections, start=1):
        start, end = round(detection.start_s * rate_hz), round(detection.end_s * rate_hz)
        points += struct.pack("<II4sIII", number, start, b"data", 0, 0, start)
        labels += _chunk(b"labl", struct.pack("<I", number) + _label(detection).encode() + b"\0")
        lengths += _chunk(b"ltxt", struct.pack("<II4sHHHH", number, end - start, b"rgn ", 0, 0, 0, 0))
    cues = _chunk(b"cue ", struct.pack("<I", len(detections)) + points)
    # libsndfile reads no label that comes after a length.
    return cues + _chunk(b"LIST", b"adtl" + labels + lengths)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack("<4sI", name, len(data)) + data + bytes(len(data) % 2)
