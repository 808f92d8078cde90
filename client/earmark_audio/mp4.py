"""MP4 and M4A (ISO 14496-12): where another recording begins in the same file."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, BinaryIO

from earmark_audio.beginnings import split_layout
from earmark_audio.recording_parts import check_parts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from earmark_audio.recording_parts import Layout

_HEADER = struct.Struct(">I4s")
_LARGE_SIZE = struct.Struct(">Q")


def mp4_layout(file: BinaryIO, size: int) -> Layout:
    """Return the layout of an MP4 file of `size` bytes: a part for each recording."""
    starts, has_audio = [0], False
    for offset, kind in _boxes(file, size):
        if kind == b"ftyp" and has_audio:
            starts.append(offset)
            check_parts(len(starts))
            has_audio = False
        has_audio = has_audio or kind in (b"moov", b"mdat")
    return split_layout(file, starts, size)


def _boxes(file: BinaryIO, size: int) -> Iterator[tuple[int, bytes]]:
    """Yield offset and type of the boxes at the top level, up to one whose length makes no sense."""
    offset = 0
    while offset + _HEADER.size <= size:
        file.seek(offset)
        length, kind = _HEADER.unpack(file.read(_HEADER.size))
        yield offset, kind
        if length == 1 and offset + _HEADER.size + _LARGE_SIZE.size <= size:
            (length,) = _LARGE_SIZE.unpack(file.read(_LARGE_SIZE.size))
        if length < _HEADER.size:  # 0: up to the end of the file
            return
        offset += length
