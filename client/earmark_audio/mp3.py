"""MP3: which bytes of a file are whole frames, and where one recording ends and a joined one begins.

An MP3 file does not state its length. Decoders believe the one in a Xing, Info or VBRI header, or estimate
it from the first frame's bit rate, and stop there. Here the frames are counted. Source: the LAME project's
description of the Xing header.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import BinaryIO

from earmark_audio.errors import AudioFileError, TooLongFileError
from earmark_audio.file_view import FileView
from earmark_audio.formats import ID3V1_BYTES, id3_bytes
from earmark_audio.mpeg import ends_within_frame, frame_bytes, frame_kind, frame_seconds, is_layer_3
from earmark_audio.notices import Notice, damaged_bytes
from earmark_audio.recording_parts import Layout, Part, check_parts

_BLOCK_BYTES = 1 << 20
_APE_HEADER_BYTES = 32

_BEGINNING = re.compile(rb"\xff[\xe2\xe3\xf2\xf3\xfa\xfb][\x10-\xef]|ID3|TAG|APETAGEX|LYRICSBEGIN")
"""What a frame of layer III or a tag begins with."""
_BEGINNING_BYTES = 11
_LYRICS_ENDS = (b"LYRICSEND", b"LYRICS200")
_MAX_LYRICS_BYTES = 1 << 16
_ENHANCED_TAG_BYTES = 227
"""Length of a tag that begins with `TAG+` and precedes an ID3v1 tag."""
_INFO = re.compile(rb"Xing|Info|VBRI")

# Tags and damaged places between the frames: those of a long recording from the radio, and of a small file.
_BYTES_PER_BREAK = 1000
_MAX_BREAKS = 10_000

_LAST_FRAME = Notice("LAST_FRAME_INCOMPLETE", "The last frame is incomplete: the recording may be truncated.")
_TAIL_BYTES = 1 << 14
"""More than three frames of MP2."""


@dataclass
class _Stream:
    """Frames of one sample rate that belong together."""

    kind: int
    frame_s: float
    runs: list[tuple[int, int]] = field(default_factory=list)
    frames: int = 0
    """Frames with audio: the one that holds the Xing header is not counted."""
    info_bytes: int = 0
    """Length of the frame with the Xing header; 0 if there is none."""
    info_frames: int | None = None
    """How many frames the Xing header states."""

    def append(self, offset: int, length: int) -> None:
        if self.runs and sum(self.runs[-1]) == offset:
            self.runs[-1] = (self.runs[-1][0], self.runs[-1][1] + length)
        else:
            self.runs.append((offset, length))


class _Reader:
    """Bytes of a file by offset, through one block in memory."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._start = 0
        self._block = b""

    def block(self, offset: int, least: int) -> memoryview:
        """Return the bytes from an offset on: at least this many, if the file has them."""
        self.at(offset, least)
        return memoryview(self._block)[offset - self._start :]

    def at(self, offset: int, size: int) -> bytes:
        begin = offset - self._start
        if begin < 0 or begin + size > len(self._block):
            self._file.seek(offset)
            self._start, self._block = offset, self._file.read(max(_BLOCK_BYTES, size))
            begin = 0
        return self._block[begin : begin + size]


def mp3_layout(file: BinaryIO, size: int, longest_s: float | None = None) -> Layout:
    """Return the layout of an MP3 file of `size` bytes, with tags and damaged bytes left out of its parts.

    Raises TooLongFileError as soon as the frames are longer than `longest_s`.
    """
    reader = _Reader(file)
    streams: list[_Stream] = []
    position, skipped, incomplete, breaks, seconds = 0, 0, 0, 0, 0.0
    while position < size:
        head = reader.at(position, 4)
        length = _frame_bytes(head)
        if length and (position + length > size):
            incomplete = size - position
            break
        if length and _is_followed(reader, position + length, size, head):
            _append_frame(streams, reader, position, length, head)
            seconds += streams[-1].frame_s
            if longest_s is not None and seconds > longest_s:
                raise TooLongFileError(seconds)
            position += length
            continue
        breaks += 1
        if breaks > _MAX_BREAKS + size // _BYTES_PER_BREAK:
            raise AudioFileError("The MP3 file is damaged in too many places to be read.")
        if tag := _tag_bytes(reader, position):
            position += tag
            continue
        position, damaged = _skip(reader, position, size)
        skipped += damaged
    layout = Layout([])
    for stream in streams:
        if stream.frames > 1:  # the decoder needs two to recognize an MP3 file
            layout.parts.append(_part(file, stream, layout))
    if skipped:
        layout.notices.append(damaged_bytes(skipped, "MP3 frames"))
    if incomplete:
        layout.notices.append(_LAST_FRAME)
    return layout


def mp2_layout(file: BinaryIO, size: int) -> Layout:
    """Return the layout of an MP2 file of `size` bytes, of which FFmpeg finds the frames itself."""
    layout = Layout([Part(FileView(file, [(0, size)]))])
    file.seek(max(0, size - _TAIL_BYTES))
    if ends_within_frame(file.read(_TAIL_BYTES)):
        layout.notices.append(_LAST_FRAME)
    return layout


def _part(file: BinaryIO, stream: _Stream, layout: Layout) -> Part:
    if stream.info_frames is not None:
        if stream.info_frames == stream.frames:
            return Part(FileView(file, stream.runs))
        if stream.info_frames > stream.frames:
            missing = stream.info_frames - stream.frames
            layout.missing = (
                f"The recording is truncated: {missing} of its {stream.info_frames} MP3 frames are missing."
            )
    # The decoder must not believe a header that is wrong: its frame is left out.
    offset, length = stream.runs[0]
    runs = [(offset + stream.info_bytes, length - stream.info_bytes), *stream.runs[1:]]
    return Part(FileView(file, [run for run in runs if run[1]], unbounded=True))


def _frame_bytes(head: bytes) -> int:
    """Return the length of the layer III frame with this header; 0 if it is not one."""
    return frame_bytes(head) if is_layer_3(head) else 0


def _is_followed(reader: _Reader, position: int, size: int, head: bytes) -> bool:
    """Return whether a frame is followed by another one, a tag, or the end: random bytes are not."""
    following = reader.at(position, _APE_HEADER_BYTES)
    if position >= size or (
        len(following) >= 4 and frame_kind(following) == frame_kind(head) and _frame_bytes(following)
    ):
        return True
    if _frame_bytes(following) or not following.strip(b"\0"):
        return True
    return bool(_tag_bytes(reader, position))


def _tag_bytes(reader: _Reader, position: int) -> int:
    head = reader.at(position, _APE_HEADER_BYTES)
    if head[:4] == b"TAG+" and reader.at(position + _ENHANCED_TAG_BYTES, 3) == b"TAG":
        return _ENHANCED_TAG_BYTES
    if head[:3] == b"TAG":
        return ID3V1_BYTES
    if head[:11] == b"LYRICSBEGIN":
        tag = reader.at(position, _MAX_LYRICS_BYTES)
        return min((at + len(end) for end in _LYRICS_ENDS if (at := tag.find(end)) > 0), default=0)
    if head[:8] == b"APETAGEX" and len(head) >= _APE_HEADER_BYTES:
        is_header = bool(head[23] & 0x20)
        return _APE_HEADER_BYTES + (int.from_bytes(head[12:16], "little") if is_header else 0)
    return id3_bytes(head)


def _skip(reader: _Reader, position: int, size: int) -> tuple[int, int]:
    """Return where the next frame or tag may begin, or the end, and how many bytes before it are damaged."""
    damaged, first = 0, 1
    while position < size:
        block = reader.block(position, _BEGINNING_BYTES)
        if not block:
            return size, damaged  # the file has become shorter
        found = _BEGINNING.search(block, first)
        is_last = len(block) < _BEGINNING_BYTES or position + len(block) >= size
        end = found.start() if found else len(block) if is_last else len(block) - _BEGINNING_BYTES + 1
        damaged += len(bytes(block[:end]).strip(b"\0"))
        position, first = position + end, 0
        if found:
            break
    return position, damaged


def _append_frame(streams: list[_Stream], reader: _Reader, offset: int, length: int, head: bytes) -> None:
    frame = reader.at(offset, min(length, 200))
    info = _info(frame, head)
    if not streams or info is not None or streams[-1].kind != frame_kind(head):
        streams.append(_Stream(frame_kind(head), frame_seconds(head)))
        check_parts(len(streams))
    stream = streams[-1]
    stream.append(offset, length)
    if info is None:
        stream.frames += 1
    else:
        stream.info_bytes, stream.info_frames = length, info or None


def _info(frame: bytes, head: bytes) -> int | None:
    """Return the number of frames that a Xing, Info or VBRI header in this frame states (0: none stated)."""
    if not _INFO.search(frame):
        return None
    is_mpeg1, is_mono = head[1] >> 3 & 3 == 3, head[3] >> 6 == 3
    side_bytes = (17 if is_mono else 32) if is_mpeg1 else (9 if is_mono else 17)
    for at in (4 + side_bytes, 6 + side_bytes):  # with a checksum (2 bytes) or without
        if frame[at : at + 4] in (b"Xing", b"Info"):
            states_frames = frame[at + 7 : at + 8] != b"" and bool(frame[at + 7] & 1)
            return int.from_bytes(frame[at + 8 : at + 12], "big") if states_frames else 0
    if frame[36:40] == b"VBRI":
        return int.from_bytes(frame[50:54], "big")
    return None
