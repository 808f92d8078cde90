"""WAV, RF64 and Wave64 from a pipe, decoded while they are recorded: nothing waits for the end of the file.

Programs that write into a pipe do not know the length of what they will write. They leave zero or a
placeholder, and then everything that follows is audio. Sources as for `wav`, and RFC 2361 (WAVE formats).
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from earmark_audio.errors import DAMAGED, IncompleteError, missing_bytes, other_form
from earmark_audio.notices import MORE_AUDIO, Notice, append_new, trailing_bytes
from earmark_audio.wav import (
    LOOKAHEAD_BYTES,
    PADDING_LOOKAHEAD_BYTES,
    UNFINISHED,
    W64_GUID,
    audio_goes_on,
    is_placeholder,
    padding_bytes,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from earmark_audio.pipe import Pipe

_BLOCK_FRAMES = 4096
_MAX_HEADER_BYTES = 1 << 20
"""Programs that write into a pipe write short headers. Another file is copied before it is read."""

# libsndfile's name for the samples, by the format tag and the bits of a sample.
_SUBTYPES = {
    (1, 8): "PCM_U8",
    (1, 16): "PCM_16",
    (1, 24): "PCM_24",
    (1, 32): "PCM_32",
    (3, 32): "FLOAT",
    (3, 64): "DOUBLE",
    (6, 8): "ALAW",
    (7, 8): "ULAW",
}
_EXTENSIBLE = 0xFFFE
_WAVE_GUID_TAIL = bytes.fromhex("000000001000800000aa00389b71")


@dataclass(frozen=True, slots=True)
class _Header:
    """What precedes the samples."""

    sample_rate_hz: int
    channels: int
    subtype: str
    endian: Literal["little", "big"]
    frame_bytes: int
    length: int
    """Bytes of the header."""
    data_bytes: int | None
    """Bytes of the samples; None if they go on to the end of the pipe."""
    form_bytes: int
    """Where the file ends, as the header states it."""
    is_unfinished: bool
    is_w64: bool


class LiveWav:
    """A recording whose samples are decoded as they come."""

    def __init__(self, pipe: Pipe, header: _Header) -> None:
        import soundfile

        self.sample_rate_hz, self.channels = header.sample_rate_hz, header.channels
        self.codec = str(soundfile.available_subtypes()[header.subtype])
        stated = None if header.data_bytes is None else header.data_bytes // header.frame_bytes
        self.declared_s = None if stated is None else stated / header.sample_rate_hz
        self.notices: list[Notice] = []
        self._pipe = pipe
        self._header = header
        self._position = 0

    def close(self) -> None:
        """Leave the pipe open: its owner closes it."""

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Iterate over the samples, [n, channels]. IncompleteError, after them, where the pipe ends early."""
        header: _Header | None = self._header
        while header is not None:
            if (header.sample_rate_hz, header.channels) != (self.sample_rate_hz, self.channels):
                raise other_form(header.sample_rate_hz, header.channels, self.sample_rate_hz, self.channels)
            if header.is_unfinished and UNFINISHED not in self.notices:
                self.notices.append(UNFINISHED)
            yield from self._samples(header)
            header = self._following(header)

    def _samples(self, header: _Header) -> Iterator[NDArray[np.float32]]:
        import soundfile

        rest = b""
        for piece in self._pieces(header):
            data = rest + piece
            whole = len(data) - len(data) % header.frame_bytes
            rest = data[whole:]
            if whole:
                block, _ = soundfile.read(
                    io.BytesIO(data[:whole]),
                    dtype="float32",
                    always_2d=True,
                    samplerate=header.sample_rate_hz,
                    channels=header.channels,
                    format="RAW",
                    subtype=header.subtype,
                    endian=header.endian.upper(),
                )
                yield block

    def _pieces(self, header: _Header) -> Iterator[bytes]:
        """Iterate over the bytes of the samples. IncompleteError, after them, where the pipe ends early."""
        self._pipe.skip(header.length)
        limit = header.frame_bytes * _BLOCK_FRAMES
        left = header.data_bytes
        while data := self._pipe.read_some(limit if left is None else min(limit, left)):
            left = None if left is None else left - len(data)
            yield data
        self._position = header.length + (header.data_bytes or 0)
        if left and self._position > header.form_bytes and not header.is_w64:
            append_new(self.notices, UNFINISHED)  # the lengths contradict each other
        elif left:
            raise IncompleteError(missing_bytes(left))
        if header.data_bytes is None:
            return
        left = header.form_bytes - self._position
        following = self._pipe.peek(min(LOOKAHEAD_BYTES, max(0, left)))
        if audio_goes_on(following, left, header.endian, length_at=16 if header.is_w64 else 4):
            append_new(self.notices, MORE_AUDIO)
            while data := self._pipe.read_some(min(limit, left)):
                left -= len(data)
                self._position += len(data)
                yield data

    def _following(self, header: _Header) -> _Header | None:
        """Read to the end of the file, and return the header of a file that follows in the same pipe."""
        if header.data_bytes is None:
            return None
        position = self._position
        while position < header.form_bytes and not _is_wave(head := self._pipe.peek(40)):
            is_w64 = header.is_w64
            if head.startswith(b"data"):
                raise IncompleteError(DAMAGED)  # libsndfile rejects a file with more samples elsewhere
            step = header.form_bytes - position if is_w64 else _chunk_bytes(self._pipe, header.endian)
            if not (skipped := self._pipe.skip(step)):
                return None
            position += skipped
        following = read_header(self._pipe)
        if following is not None:
            return following
        is_audio_or_text, count = False, 0
        while data := self._pipe.read_some(1 << 16):
            is_audio_or_text = is_audio_or_text or bool(data.strip(b"\0"))
            count += len(data)
        if is_audio_or_text:
            self.notices.append(trailing_bytes(count))
        return None


def read_header(pipe: Pipe) -> _Header | None:
    """Parse the header at the beginning of a pipe, which remains to be read.

    None if it is not a WAV file, or one that cannot be decoded before its end.
    """
    magic = pipe.peek(40)
    if not _is_wave(magic):
        return None
    is_w64 = magic.startswith(W64_GUID)
    order: Literal["little", "big"] = "big" if magic[:4] == b"RIFX" else "little"
    size_bytes, name_bytes = (8, 16) if is_w64 else (4, 4)
    own = name_bytes + size_bytes
    position = own + name_bytes
    form_bytes = int.from_bytes(magic[name_bytes:own], order) + (0 if is_w64 else 8)
    wide: int | None = None
    fmt = b""
    while position < _MAX_HEADER_BYTES:
        head = pipe.peek(position + own)[position:]
        if len(head) < own:
            return None
        name, length = head[:4], int.from_bytes(head[name_bytes:], order) - (own if is_w64 else 0)
        if name == b"data":
            data_bytes = length if wide is None else wide
            is_wide = is_w64 or wide is not None
            return _header(fmt, order, position + own, data_bytes, form_bytes, is_wide=is_wide, is_w64=is_w64)
        if not 0 <= length < _MAX_HEADER_BYTES:
            return None
        end = position + own + length
        body = pipe.peek(end)[position + own :]
        if name == b"fmt " and fmt:
            return None  # libsndfile rejects a file with two
        if name == b"fmt ":
            fmt = body
        elif name == b"ds64":
            form_bytes, wide = (int.from_bytes(body[at : at + 8], "little") for at in (0, 8))
            form_bytes += 8
        following = pipe.peek(end + PADDING_LOOKAHEAD_BYTES)[end:]
        position = end + (-length % 8 if is_w64 else padding_bytes(length, following))
    return None


def _header(
    fmt: bytes,
    order: Literal["little", "big"],
    length: int,
    data_bytes: int,
    form_bytes: int,
    *,
    is_wide: bool,
    is_w64: bool,
) -> _Header | None:
    tag, channels, rate_hz, _, frame_bytes, bits = (
        int.from_bytes(fmt[at : at + size], order)
        for at, size in ((0, 2), (2, 2), (4, 4), (8, 4), (12, 2), (14, 2))
    )
    if tag == _EXTENSIBLE and fmt[26:40] == _WAVE_GUID_TAIL:
        tag = int.from_bytes(fmt[24:26], order)
    subtype = _SUBTYPES.get((tag, bits))
    if subtype is None or not channels or not rate_hz or frame_bytes != channels * bits // 8:
        return None
    is_unfinished = data_bytes <= 0 and form_bytes <= length
    is_stated = 0 <= data_bytes < (1 << 62) if is_wide else not is_placeholder(data_bytes)
    is_known = is_stated and not is_unfinished
    return _Header(
        sample_rate_hz=rate_hz,
        channels=channels,
        subtype=subtype,
        endian=order,
        frame_bytes=frame_bytes,
        length=length,
        data_bytes=data_bytes if is_known else None,
        form_bytes=form_bytes,
        is_unfinished=is_unfinished,
        is_w64=is_w64,
    )


def _is_wave(head: bytes) -> bool:
    return head.startswith(W64_GUID) or (
        head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64") and head[8:12] == b"WAVE"
    )


def _chunk_bytes(pipe: Pipe, order: Literal["little", "big"]) -> int:
    """Return the bytes of the zeros, or of the chunk with its padding, that come next in a pipe."""
    head = pipe.peek(40)
    if zeros := len(head) - len(head.lstrip(b"\0")):
        return zeros
    if not re.match(rb"[ -~]{4}", head):
        return max(1, len(head))
    end = 8 + int.from_bytes(head[4:8], order)
    if end > _MAX_HEADER_BYTES:
        return end + end % 2
    return end + padding_bytes(end, pipe.peek(end + PADDING_LOOKAHEAD_BYTES)[end:])
