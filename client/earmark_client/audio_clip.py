"""A clip of a stream's audio, and the recent audio from which clips are cut."""

from __future__ import annotations

import struct
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from earmark_client.audio import AudioFormat, Encoding, piece_bytes

if TYPE_CHECKING:
    from earmark_client.audio import Piece

_PCM = 1
# Format tags of RIFF WAVE.
_WAV_FORMATS = {Encoding.LINEAR16: _PCM, Encoding.FLOAT32: 3, Encoding.ALAW: 6, Encoding.MULAW: 7}
_SILENT_SAMPLES = {Encoding.MULAW: b"\xff", Encoding.ALAW: b"\xd5"}


@dataclass(frozen=True, slots=True)
class AudioClip:
    """A part of a stream's audio: `data` has interleaved samples in the stream's encoding.

    `start_s` counts from the start of the stream's audio.
    """

    start_s: float
    data: bytes = field(repr=False)
    sample_rate_hz: int
    encoding: Encoding = Encoding.LINEAR16
    channels: int = 1

    @property
    def end_s(self) -> float:
        """The end of the clip, from the start of the stream's audio."""
        return self.start_s + self._format.seconds(len(self.data))

    def wav(self) -> bytes:
        """Return the clip as a WAV file, with its samples unchanged."""
        frame_bytes, tag = self._format.frame_bytes, _WAV_FORMATS[self.encoding]
        bits = 8 * frame_bytes // self.channels
        rate_hz = self.sample_rate_hz
        form = struct.pack("<HHIIHH", tag, self.channels, rate_hz, rate_hz * frame_bytes, frame_bytes, bits)
        chunks = _chunk(b"fmt ", form)
        if tag != _PCM:
            frames = len(self.data) // frame_bytes
            chunks = _chunk(b"fmt ", form + bytes(2)) + _chunk(b"fact", struct.pack("<I", frames))
        return _chunk(b"RIFF", b"WAVE" + chunks + _chunk(b"data", self.data))

    @property
    def _format(self) -> AudioFormat:
        return AudioFormat(self.sample_rate_hz, self.encoding, self.channels)


class RecentAudio:
    """The newest audio of a stream, up to the point from which it is no longer needed.

    It has no lock.
    """

    def __init__(self, audio_format: AudioFormat, *, start_s: float = 0.0) -> None:
        self._format = audio_format
        self._pieces: deque[Piece] = deque()
        self._start = self._end = audio_format.byte_offset(start_s)

    @property
    def end_s(self) -> float:
        """The end of the audio so far, from the start of the stream's audio."""
        return self._format.seconds(self._end)

    def append(self, piece: Piece) -> None:
        """Append audio, or a silence by its length in bytes."""
        self._pieces.append(piece)
        self._end += piece_bytes(piece)

    def discard_before(self, offset_s: float) -> None:
        """Discard whole pieces that end before an offset."""
        position = self._format.byte_offset(offset_s)
        while self._pieces and self._start + piece_bytes(self._pieces[0]) <= position:
            self._start += piece_bytes(self._pieces.popleft())

    def clip(self, start_s: float, end_s: float) -> AudioClip:
        """Return the audio between two offsets, as far as it is here."""
        start = max(self._start, self._format.byte_offset(max(0.0, start_s)))
        # A sample may be split between two pieces.
        whole = self._end // self._format.frame_bytes * self._format.frame_bytes
        end = min(whole, self._format.byte_offset(end_s))
        data, position = bytearray(), self._start
        for piece in self._pieces:
            first, last = max(start - position, 0), min(end - position, piece_bytes(piece))
            if first < last:
                data += self._silence(last - first) if isinstance(piece, int) else piece[first:last]
            position += piece_bytes(piece)
        layout = self._format
        return AudioClip(
            layout.seconds(start), bytes(data), layout.sample_rate_hz, layout.encoding, layout.channels
        )

    def _silence(self, length_bytes: int) -> bytes:
        return _SILENT_SAMPLES.get(self._format.encoding, b"\0") * length_bytes


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack("<4sI", name, len(data)) + data + bytes(len(data) % 2)
