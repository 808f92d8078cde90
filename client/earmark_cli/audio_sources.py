"""Audio sources of the commands: raw samples from standard input, and blocks in real time."""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self

from earmark_client.audio import AudioFormat
from earmark_client.errors import RecordingError
from earmark_client.microphone import Microphone
from earmark_client.recording import Recording

if TYPE_CHECKING:
    from collections.abc import Iterator

    from earmark_client.errors import EarmarkError


# The first bytes of recordings that `-` reads as recordings. Shorter ones could be raw samples.
_COPIED = (
    b"fLaC",
    b"OggS",
    b"ID3\x02",
    b"ID3\x03",
    b"ID3\x04",
    b"caff",
    b"\x1aE\xdf\xa3",
    b"riff\x2e\x91\xcf\x11",
)
_HEAD_BYTES = 8
_MAX_COPIED_BYTES = 1 << 30


class RawInput:
    """Raw samples from a file descriptor, such as standard input: an iterable of blocks.

    Raises RecordingError if it cannot be read, or contains no audio or another file type.
    """

    def __init__(self, descriptor: int, audio_format: AudioFormat, *, block_s: float = 1.0) -> None:
        self.sample_rate_hz = audio_format.sample_rate_hz
        self.encoding = audio_format.encoding
        self.channels = audio_format.channels
        self._descriptor = descriptor
        self._head = b""
        self._block_bytes = max(audio_format.frame_bytes, audio_format.byte_offset(block_s))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the descriptor open, because its owner closes it."""

    def contains_recording(self) -> bool:
        """Read the first bytes, and return whether they are those of a compressed recording."""
        if os.isatty(self._descriptor):
            return False
        while len(self._head) < _HEAD_BYTES and (data := self._read()):
            self._head += data
        return self._head.startswith(_COPIED)

    def __iter__(self) -> Iterator[bytes]:
        if os.isatty(self._descriptor):
            raise RecordingError(
                "standard input is a terminal: pipe raw samples into it, or give the name of a file"
            )
        has_audio = False
        while data := self._head or self._read():
            self._head = b""
            if not has_audio and data.startswith((b"RIFF", b"RF64")):
                raise RecordingError(
                    "standard input contains a WAV file, but `-` reads raw samples: give the "
                    "name of the file instead"
                )
            has_audio = True
            yield data
        if not has_audio:
            raise RecordingError("standard input contains no audio")

    def _read(self) -> bytes:
        try:
            # Not sys.stdin, whose lock a thread that still reads would hold when the program exits.
            return os.read(self._descriptor, self._block_bytes)
        except OSError as error:
            raise RecordingError(f"standard input cannot be read: {error.strerror}") from error


@contextmanager
def open_piped(
    descriptor: int, audio_format: AudioFormat, *, block_s: float, channel: int | None
) -> Iterator[Recording | RawInput]:
    """Open standard input: raw samples as they come, or a compressed recording after its last byte.

    Raises RecordingError if it cannot be read, or is longer than 1 GiB and compressed.
    """
    raw = RawInput(descriptor, audio_format, block_s=block_s)
    if not raw.contains_recording():
        if channel is not None:
            raise RecordingError(
                "standard input: --channel chooses a channel of a recording, but raw samples came: omit it"
            )
        yield raw
        return
    # The readers of recordings seek, which a pipe cannot.
    with tempfile.NamedTemporaryFile(prefix="earmark-") as copy:
        for data in raw:
            if copy.tell() + len(data) > _MAX_COPIED_BYTES:
                raise RecordingError(
                    "standard input: a compressed recording is copied first, and at most 1 GiB of it: give "
                    "the name of the file, or send raw samples"
                )
            copy.write(data)
        copy.flush()
        try:
            recording = Recording(copy.name, block_s=block_s, channel=channel)
        except RecordingError as error:
            message = str(error).replace(copy.name, "standard input")
            raise RecordingError(message, reason=error.reason) from error
        recording.path = Path("standard input")
        with recording:
            yield recording


AudioSource = Microphone | Recording | RawInput


def audio_format(source: AudioSource) -> AudioFormat:
    """Return the format of the blocks that a source yields."""
    return AudioFormat(source.sample_rate_hz, source.encoding, source.channels)


def in_real_time(source: Recording | RawInput) -> Iterator[bytes]:
    """Yield the blocks of a source in real time, each when its last sample would have been recorded."""
    layout = audio_format(source)
    start_s, yielded_bytes = time.monotonic(), 0
    for block in source:
        yielded_bytes += len(block)
        time.sleep(max(0.0, start_s + layout.seconds(yielded_bytes) - time.monotonic()))
        yield block


def concerns_one_recording(error: EarmarkError) -> bool:
    """Return whether an error concerns one recording, so that another recording may still succeed."""
    return isinstance(error, RecordingError) or error.reason in {"BAD_AUDIO", "UNSUPPORTED_SAMPLE_RATE"}
