"""Audio sources of the commands: raw samples from standard input, and blocks in real time."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Self

from earmark_client.audio import AudioFormat
from earmark_client.errors import RecordingError
from earmark_client.microphone import Microphone
from earmark_client.recording import Recording

if TYPE_CHECKING:
    from collections.abc import Iterator

    from earmark_client.errors import EarmarkError

_CONTAINERS = {b"RIFF": "WAV", b"fLaC": "FLAC", b"OggS": "Ogg", b"ID3\x03": "MP3", b"ID3\x04": "MP3"}


class RawInput:
    """Raw samples from a file descriptor, such as standard input: an iterable of blocks.

    Raises RecordingError if it cannot be read, or contains no audio or another file type.
    """

    def __init__(self, descriptor: int, audio_format: AudioFormat, *, block_s: float = 1.0) -> None:
        self.sample_rate_hz = audio_format.sample_rate_hz
        self.encoding = audio_format.encoding
        self.channels = audio_format.channels
        self._descriptor = descriptor
        self._block_bytes = max(audio_format.frame_bytes, audio_format.byte_offset(block_s))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the descriptor open, because its owner closes it."""

    def __iter__(self) -> Iterator[bytes]:
        if os.isatty(self._descriptor):
            raise RecordingError(
                "standard input is a terminal: pipe raw samples into it, or give the name of a file"
            )
        has_audio = False
        while data := self._read():
            if not has_audio and (container := _CONTAINERS.get(data[:4])):
                raise RecordingError(
                    f"standard input contains a {container} file, but `-` reads raw samples: give the "
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
