"""MP4 and M4A (ISO 14496-12): where another recording begins in the same file, and what is missing."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, BinaryIO

from earmark_audio.beginnings import split_layout
from earmark_audio.errors import AudioFileError, missing_bytes
from earmark_audio.recording_parts import MAX_ELEMENTS, check_parts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from earmark_audio.recording_parts import Layout

_HEADER = struct.Struct(">I4s")
_LARGE_SIZE = struct.Struct(">Q")
_AUDIO = (b"moov", b"moof", b"mdat")
"""Boxes of the audio, and of its index."""


def mp4_layout(file: BinaryIO, size: int) -> Layout:
    """Return the layout of an MP4 file of `size` bytes: a part for each recording.

    AudioFileError for one that ends before its index, which most recorders write last.
    """
    starts, has_audio, has_index = [0], False, False
    missing = 0
    for offset, kind, length in _boxes(file, size):
        if kind == b"ftyp" and has_audio:
            starts.append(offset)
            check_parts(len(starts))
            has_audio, has_index = False, False
        has_audio = has_audio or kind in _AUDIO
        has_index = has_index or kind == b"moof" or (kind == b"moov" and offset + length <= size)
        missing = offset + length - size if kind in _AUDIO else 0
    if has_audio and not has_index and len(starts) == 1:
        raise AudioFileError("The file is truncated: its index, which is written last, is missing.")
    layout = split_layout(file, starts, size)
    if missing > 0:
        layout.missing = missing_bytes(missing)
    return layout


def _boxes(file: BinaryIO, size: int) -> Iterator[tuple[int, bytes, int]]:
    """Yield offset, type and length of the boxes at the top level, up to one whose length makes no sense."""
    offset = 0
    for _ in range(MAX_ELEMENTS):
        if offset + _HEADER.size > size:
            return
        file.seek(offset)
        length, kind = _HEADER.unpack(file.read(_HEADER.size))
        if length == 1 and offset + _HEADER.size + _LARGE_SIZE.size <= size:
            (length,) = _LARGE_SIZE.unpack(file.read(_LARGE_SIZE.size))
        yield offset, kind, length
        if length < _HEADER.size:  # 0: up to the end of the file
            return
        offset += length
