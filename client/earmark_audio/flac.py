"""FLAC (RFC 9639): where the stream ends, and whether another one follows in the same file."""

from __future__ import annotations

import re
from typing import BinaryIO

from earmark_audio.beginnings import find_beginnings
from earmark_audio.file_view import FileView
from earmark_audio.formats import ID3V1_BYTES
from earmark_audio.notices import trailing_bytes
from earmark_audio.recording_parts import Layout, Part

_BLOCK_BYTES = 1 << 20

# The marker, and the header of the block that must follow it: STREAMINFO, of 34 bytes, last block or not.
_BEGINNING = re.compile(rb"fLaC[\x00\x80]\x00\x00\x22")
_STATED_AT, _STATED_BYTES = 21, 5
"""Where the length in frames is: the last 36 bits of these bytes, 0 if it is unknown."""

_LEAST_PADDING_BYTES = 16


def flac_layout(file: BinaryIO, size: int) -> Layout:
    """Return the layout of a FLAC file of `size` bytes: one part for each stream."""
    starts = [0, *find_beginnings(file, 8, size, _BEGINNING)]
    layout = Layout([])
    for begin, end in zip(starts, [*starts[1:], size], strict=True):
        file.seek(begin + _STATED_AT)
        stated = file.read(_STATED_BYTES)
        frames = int.from_bytes(stated, "big") & 0xF_FFFF_FFFF or None
        audio_end, patches = end, {}
        if frames is None:
            audio_end = _without_trailer(file, begin, end)
        else:
            # The decoder must read on after that length: audio or other bytes may follow.
            patches = {_STATED_AT: bytes([stated[0] & 0xF0, 0, 0, 0, 0])}
        if audio_end < end:
            layout.notices.append(trailing_bytes(end - audio_end))
        # Unbounded: the decoder must not seek to the end, which fails where no length is stated.
        runs = [(begin, audio_end - begin)]
        layout.parts.append(Part(FileView(file, runs, patches=patches, unbounded=True), frames))
    return layout


def _without_trailer(file: BinaryIO, begin: int, end: int) -> int:
    """Return the end of a stream without an ID3v1 tag or zeros after it, for one that states no length.

    The last frame may itself end with a few zeros.
    """
    if end - begin >= ID3V1_BYTES:
        file.seek(end - ID3V1_BYTES)
        if file.read(3) == b"TAG":
            end -= ID3V1_BYTES
    position = end
    while position > begin:
        start = max(begin, position - _BLOCK_BYTES)
        file.seek(start)
        block = file.read(position - start).rstrip(b"\0")
        position = start + len(block)
        if block:
            break
    return position if end - position >= _LEAST_PADDING_BYTES else end
