"""What kind of file a recording is, and whether all of it came: the checks before it is decoded."""

from __future__ import annotations

import enum
import os
from typing import IO

from earmark_spotter.errors import AudioError

_OGG_PAGE_HEADER_BYTES = 27
_OGG_PAGE_MAX_BYTES = _OGG_PAGE_HEADER_BYTES + 255 + 255 * 255

_WAV_UNKNOWN_LENGTH = 0x7F00_0000
"""Programs that write WAV to a pipe put a number near 2 or 4 GiB where the length belongs."""

_MAX_WAV_CHUNKS = 1000
"""Far more than any program writes: a file of nothing but chunks must not keep us busy."""


class Container(enum.Enum):
    """A file format with audio in it."""

    WAV = "WAV"
    """RIFF WAVE, with whatever coding libsndfile knows inside."""
    FLAC = "FLAC"
    """Native FLAC (RFC 9639)."""
    OGG = "Ogg"
    """Ogg (RFC 3533) with Opus or Vorbis."""


# libsndfile guesses among thirty formats, some of which take anything; only these are let through.
_MAGIC = {b"RIFF": Container.WAV, b"fLaC": Container.FLAC, b"OggS": Container.OGG}


def check_container(file: IO[bytes], stated: Container | None = None) -> Container:
    """Tell a recording's container by its first bytes; the file is rewound.

    Raises AudioError for an empty file, one that is no WAV, FLAC or Ogg, one that is not what
    was stated, and for a WAV or Ogg file that is cut off, which decoders pass over in silence.
    """
    head = file.read(12)
    if not head:
        raise AudioError("The recording is empty: it has no bytes.")
    found = _MAGIC.get(head[:4])
    if found is None or (found is Container.WAV and head[8:] != b"WAVE"):
        raise AudioError(
            f"The recording does not begin like a WAV, FLAC or Ogg file but with {head!r}: "
            "send one of these, or state the encoding of raw samples."
        )
    if stated is not None and stated is not found:
        raise AudioError(f"The recording is said to be {stated.value}, but its bytes are {found.value}.")

    size = file.seek(0, os.SEEK_END)
    missing = 0
    if found is Container.WAV:
        missing = _missing_wav_bytes(file, size)
    elif found is Container.OGG:
        missing = _missing_ogg_bytes(file, size)
    if missing > 0:
        raise AudioError(f"The {found.value} recording is cut off: its last {missing} bytes are missing.")
    file.seek(0)
    return found


def _missing_wav_bytes(file: IO[bytes], size: int) -> int:
    """How many bytes of the `data` chunk lie beyond the end of the file."""
    start = 12
    for _ in range(_MAX_WAV_CHUNKS):
        file.seek(start)
        header = file.read(8)
        length = int.from_bytes(header[4:], "little")
        if len(header) < 8:
            break
        if header[:4] == b"data":
            return 0 if length >= _WAV_UNKNOWN_LENGTH else start + 8 + length - size
        start += 8 + length + length % 2  # chunks are padded to an even length
    return 0


def _missing_ogg_bytes(file: IO[bytes], size: int) -> int:
    """How many bytes of the last page lie beyond the end of the file (page layout: RFC 3533, section 6)."""
    file.seek(max(0, size - _OGG_PAGE_MAX_BYTES))
    tail = file.read()
    page = tail[tail.rfind(b"OggS") :]
    segment_count = page[_OGG_PAGE_HEADER_BYTES - 1] if len(page) >= _OGG_PAGE_HEADER_BYTES else 0
    body = _OGG_PAGE_HEADER_BYTES + segment_count
    return body + sum(page[_OGG_PAGE_HEADER_BYTES:body]) - len(page)
