"""Joined recordings, found by the bytes that a recording of their format begins with.

FFmpeg reads one recording from a file in these formats, and ends where another one follows.
"""

from __future__ import annotations

import re
from typing import BinaryIO

from earmark_audio.file_view import FileView
from earmark_audio.recording_parts import Layout, Part, check_parts

_BLOCK_BYTES = 1 << 20
_LONGEST_BEGINNING = 64

BEGINNINGS = {
    "amr": re.compile(rb"#!AMR(-WB)?\n"),
    "asf": re.compile(rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c"),
    "flv": re.compile(rb"FLV\x01[\0\1\4\5]\0\0\0\x09\0\0\0\0"),
    "nistsphere": re.compile(rb"NIST_1A\n {0,3}\d{4,7}\n"),
    "nut": re.compile(rb"nut/multimedia container\0"),
    "rm": re.compile(rb"\.RMF\0\0\0[\x10-\x12]\0[\0\1]"),
    "sox": re.compile(rb"\.SoX..\0\0|XoS\.\0\0..", re.DOTALL),
    "tta": re.compile(rb"TTA1[\1-\3]\0[\1-\x08]\0[\x08\x10\x18]\0"),
    "voc": re.compile(rb"Creative Voice File\x1a\x1a\0"),
    # The first of the blocks of a recording: it begins at sample 0, and its flags say INITIAL_BLOCK.
    "wv": re.compile(rb"wvpk.{4}..\0.{5}\0{4}(?!\0{4}).{5}[\x08-\x0f\x18-\x1f\x28-\x2f]", re.DOTALL),
}
"""By FFmpeg's name for the container."""


def joined_layout(file: BinaryIO, size: int, pattern: re.Pattern[bytes]) -> Layout:
    """Return the layout of a file of `size` bytes: a part for each recording that begins with `pattern`."""
    starts = [0, *find_beginnings(file, 1, size, pattern)]
    return split_layout(file, starts, size)


def split_layout(file: BinaryIO, starts: list[int], size: int) -> Layout:
    """Return the layout of a file of `size` bytes whose recordings begin at `starts`."""
    ends = [*starts[1:], size]
    return Layout(
        [Part(FileView(file, [(start, end - start)])) for start, end in zip(starts, ends, strict=True)]
    )


def find_beginnings(file: BinaryIO, position: int, size: int, pattern: re.Pattern[bytes]) -> list[int]:
    """Return where `pattern`, of at most 64 bytes, occurs from `position` on.

    AudioFileError if it occurs too often.
    """
    found: list[int] = []
    while position < size:
        file.seek(position)
        block = file.read(_BLOCK_BYTES + _LONGEST_BEGINNING)
        for match in pattern.finditer(block):
            if match.start() < _BLOCK_BYTES:
                found.append(position + match.start())
                check_parts(len(found) + 1)
        position += _BLOCK_BYTES
    return found
