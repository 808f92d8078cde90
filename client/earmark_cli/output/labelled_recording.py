"""A recorded stream: a WAV file with the detections as cue points, and a file with Audacity labels.

The chunks `cue ` and `LIST adtl` are specified in Microsoft and IBM, "Multimedia Programming Interface and
Data Specifications 1.0", 1991. Audacity labels are lines of start, end and text, separated by tabs.
"""

from __future__ import annotations

import struct
import threading
from typing import IO, TYPE_CHECKING, Self

from earmark_client.audio import Silence
from earmark_client.errors import RecordingError

from earmark_cli.output.console import notice, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from earmark_client.events import Detection

_SAMPLE_BYTES = 2
_HEADER_BYTES = 44
# The sizes in a RIFF file have 32 bits. 16 MiB are reserved for the cue points.
_MAX_AUDIO_BYTES = (1 << 32) - (1 << 24)


class LabelledRecording:
    """Writes 16-bit mono audio and detections at once, until its context ends.

    If the disk is full or the file reaches 4 GiB, the recording stops with a notice and the stream
    continues. The files are valid at any time, also if the process is killed. Raises RecordingError if
    the files exist already or cannot be created.
    """

    def __init__(self, path: Path, *, sample_rate_hz: int) -> None:
        if path.suffix.lower() != ".wav":
            raise RecordingError(f"{path}: the recording is a WAV file: give a name that ends in .wav")
        self.path, self.labels_path = path, path.with_suffix(".txt")
        self._rate_hz = sample_rate_hz
        self._detections: list[Detection] = []
        self._written = 0
        self._lock = threading.Lock()  # the audio is read on another thread
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

    def record(self, blocks: Iterable[bytes | Silence]) -> Iterator[bytes | Silence]:
        """Write blocks, a silence as zeros, and yield them unchanged."""
        for block in blocks:
            with self._lock:
                if isinstance(block, Silence):
                    frames = round(block.seconds * self._rate_hz)
                    for start in range(0, frames, self._rate_hz):
                        self._write(bytes(_SAMPLE_BYTES * min(self._rate_hz, frames - start)))
                else:
                    self._write(block)
            yield block

    def add_label(self, detection: Detection) -> None:
        """Write the label of a detection."""
        with self._lock:
            self._detections.append(detection)
            line = f"{detection.start_s:.3f}\t{detection.end_s:.3f}\t{_label(detection)}\n"
            self._try(lambda: _write_all(self._labels, line.encode()))

    def _write(self, data: bytes) -> None:
        if self._written + len(data) > _MAX_AUDIO_BYTES:
            self._stop("a WAV file cannot be larger than 4 GiB")
            return
        self._try(lambda: self._append(data))

    def _append(self, data: bytes) -> None:
        _write_all(self._audio, data)
        self._written += len(data)
        # Update the header at once, so that the file is valid at any time.
        self._write_header()

    def _write_header(self, more_bytes: int = 0) -> None:
        self._audio.seek(0)
        _write_all(self._audio, _header(self._rate_hz, self._written, more_bytes))
        self._audio.seek(_HEADER_BYTES + self._written)

    def _try(self, write: Callable[[], None]) -> None:
        if not self._open:
            return
        try:
            write()
        except OSError as error:
            self._stop(error.strerror or str(error))

    def _stop(self, reason: str) -> None:
        if self._open:
            written_s = self._written / _SAMPLE_BYTES / self._rate_hz
            self._end()
            notice(
                f"earmark: {self.path}: {reason}: the recording stops after {written_s:.1f} s, the stream "
                "continues"
            )

    def _end(self) -> None:
        """Write the cue points after the audio if the disk has space, and close the files."""
        if not self._open:
            return
        self._open = False
        try:
            self._audio.truncate(_HEADER_BYTES + self._written)
            samples = self._written // _SAMPLE_BYTES
            chunks = _cue_chunks(self._detections, self._rate_hz, samples) if self._detections else b""
            self._audio.seek(_HEADER_BYTES + self._written)
            _write_all(self._audio, chunks)
            self._write_header(len(chunks))
        except OSError:
            pass  # the header still states the size of the audio that was written
        for file in (self._audio, self._labels):
            file.close()


def _create(path: Path) -> IO[bytes]:
    try:
        # Unbuffered, so that closing the file does not try again to write what failed.
        return path.open("xb", buffering=0)
    except FileExistsError:
        raise RecordingError(f"{path} already exists: give --record another name") from None
    except OSError as error:
        raise RecordingError(f"{path} cannot be written: {error.strerror}") from error


def _write_all(file: IO[bytes], data: bytes) -> None:
    """Write all data; when the disk is almost full, one write may write only a part."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def _label(detection: Detection) -> str:
    return f"{printable(detection.keyword)} {detection.confidence:.2f}"


def _header(rate_hz: int, data_bytes: int, more_bytes: int) -> bytes:
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate_hz, rate_hz * _SAMPLE_BYTES, _SAMPLE_BYTES, 16)
    riff_bytes = _HEADER_BYTES - 8 + data_bytes + more_bytes
    return (
        struct.pack("<4sI4s", b"RIFF", riff_bytes, b"WAVE") + form + struct.pack("<4sI", b"data", data_bytes)
    )


def _cue_chunks(detections: list[Detection], rate_hz: int, samples: int) -> bytes:
    """Return the chunks with a cue point at the start of each detection, its label and its length.

    None of them lies outside of the `samples` of the file, wherever a faulty server says that it is.
    """
    points, labels, lengths = b"", b"", b""
    for number, detection in enumerate(detections, start=1):
        start, end = sorted(
            min(max(0, round(offset_s * rate_hz)), samples)
            for offset_s in (detection.start_s, detection.end_s)
        )
        points += struct.pack("<II4sIII", number, start, b"data", 0, 0, start)
        labels += _chunk(b"labl", struct.pack("<I", number) + _label(detection).encode() + b"\0")
        lengths += _chunk(b"ltxt", struct.pack("<II4sHHHH", number, end - start, b"rgn ", 0, 0, 0, 0))
    cues = _chunk(b"cue ", struct.pack("<I", len(detections)) + points)
    # Labels come first: libsndfile ignores labels after lengths.
    return cues + _chunk(b"LIST", b"adtl" + labels + lengths)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack("<4sI", name, len(data)) + data + bytes(len(data) % 2)
