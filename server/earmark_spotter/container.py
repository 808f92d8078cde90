"""Checks before a recording is decoded: its container format, and whether the file is complete."""

from __future__ import annotations

import enum
import os
from typing import IO

from earmark_spotter.errors import AudioError

_OGG_PAGE_HEADER_BYTES = 27
_OGG_PAGE_MAX_BYTES = _OGG_PAGE_HEADER_BYTES + 255 + 255 * 255

_WAV_UNKNOWN_LENGTH = 0x7F00_0000
"""Programs that write WAV to a pipe cannot know the length, and write a number near 2 or 4 GiB instead."""

_MAX_WAV_CHUNKS = 1000
"""Far more than any program writes; limits the time that a malicious file of tiny chunks can cost."""


class Container(enum.Enum):
    """A file format that contains audio."""

    WAV = "WAV"
    """RIFF WAVE, with any coding that libsndfile supports."""
    FLAC = "FLAC"
    """Native FLAC (RFC 9639)."""
    OGG = "Ogg"
    """Ogg (RFC 3533) with Opus or Vorbis."""


# libsndfile detects thirty formats, some of which match almost any bytes. Only these are accepted.
_MAGIC = {b"RIFF": Container.WAV, b"fLaC": Container.FLAC, b"OggS": Container.OGG}


def check_container(file: IO[bytes], stated: Container | None = None) -> Container:
    """Return a recording's container, recognized by its first bytes, and rewind the file.

    Raises AudioError for an empty file, for one that is neither WAV, FLAC nor Ogg, for one that
    differs from `stated`, and for a truncated WAV or Ogg file, which decoders do not report.
    """
    head = file.read(12)
    if not head:
        raise AudioError("The recording is empty: the file has no bytes.")
    found = _MAGIC.get(head[:4])
    if found is None or (found is Container.WAV and head[8:] != b"WAVE"):
        raise AudioError(
            f"The recording is not a WAV, FLAC or Ogg file: it begins with {head!r}. "
            "Convert it to one of these, or specify the encoding if it is raw samples."
        )
    if stated is not None and stated is not found:
        raise AudioError(
            f"The request declares a {stated.value} recording, but the file is {found.value}. "
            "Declare the right encoding, or leave it unspecified."
        )

    size = file.seek(0, os.SEEK_END)
    missing = 0
    if found is Container.WAV:
        missing = _missing_wav_bytes(file, size)
    elif found is Container.OGG:
        missing = _missing_ogg_bytes(file, size)
    if missing > 0:
        raise AudioError(
            f"The {found.value} recording is truncated: its last {missing} bytes are missing. "
            "Send the whole file."
        )
    file.seek(0)
    return found


def _missing_wav_bytes(file: IO[bytes], size: int) -> int:
    """Return how many bytes of the `data` chunk lie beyond the end of the file."""
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
    """Return how many bytes of the last page are missing (page layout: RFC 3533, section 6)."""
    file.seek(max(0, size - _OGG_PAGE_MAX_BYTES))
    tail = file.read()
    page = tail[tail.rfind(b"OggS") :]
    segment_count = page[_OGG_PAGE_HEADER_BYTES - 1] if len(page) >= _OGG_PAGE_HEADER_BYTES else 0
    body = _OGG_PAGE_HEADER_BYTES + segment_count
    return body + sum(page[_OGG_PAGE_HEADER_BYTES:body]) - len(page)
