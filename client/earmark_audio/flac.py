"""FLAC (RFC 9639): where the stream begins, and whether another one follows in the same file."""

from __future__ import annotations

from typing import BinaryIO

from earmark_audio.file_view import FileView
from earmark_audio.formats import id3_bytes
from earmark_audio.recording_parts import Layout, Part, check_parts

_BLOCK_BYTES = 1 << 20

# The marker, and the header of the block that must follow it: STREAMINFO, of 34 bytes, last block or not.
_BEGINNINGS = (b"fLaC\x00\x00\x00\x22", b"fLaC\x80\x00\x00\x22")
_STREAMINFO_BYTES = 34


def flac_layout(file: BinaryIO, size: int) -> Layout:
    """Return the layout of a FLAC file of `size` bytes: one part for each stream."""
    file.seek(0)
    start = id3_bytes(file.read(10))
    starts = [start, *_beginnings(file, start + 8, size)]
    parts = []
    for begin, end in zip(starts, [*starts[1:], size], strict=True):
        # Unbounded: the decoder must not seek to the end, which fails where no length is stated.
        parts.append(
            Part(FileView(file, [(begin, end - begin)], unbounded=True), _stated_frames(file, begin))
        )
    return Layout(parts)


def _stated_frames(file: BinaryIO, start: int) -> int | None:
    """Return the 36 bits of STREAMINFO that state the length in frames; None where they are 0."""
    file.seek(start + 8)
    info = file.read(_STREAMINFO_BYTES)
    return int.from_bytes(info[13:18], "big") & 0xF_FFFF_FFFF or None


def _beginnings(file: BinaryIO, position: int, size: int) -> list[int]:
    found = []
    overlap = len(_BEGINNINGS[0]) - 1
    while position < size:
        file.seek(position)
        block = file.read(_BLOCK_BYTES + overlap)
        for beginning in _BEGINNINGS:
            at = block.find(beginning)
            while 0 <= at < _BLOCK_BYTES:
                found.append(position + at)
                check_parts(len(found) + 1)
                at = block.find(beginning, at + 1)
        position += _BLOCK_BYTES
    return sorted(found)
