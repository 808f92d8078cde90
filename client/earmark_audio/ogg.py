"""Ogg (RFC 3533): the links of a chain, and whether the pages of a stream are complete and intact."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from earmark_audio.errors import DAMAGED, missing_bytes
from earmark_audio.file_view import FileView
from earmark_audio.formats import is_ogg_audio
from earmark_audio.notices import Notice, append_new, damaged_bytes, trailing_bytes
from earmark_audio.recording_parts import Layout, Part, check_parts

if TYPE_CHECKING:
    from collections.abc import Iterator

_HEADER_BYTES = 27
_FIELDS = struct.Struct("<5xBQII")
_CHECKSUM = slice(22, 26)
_BEGIN, _END = 0x02, 0x04
_LEAST_BLOCK_BYTES, _BLOCK_BYTES = 1 << 10, 1 << 20

_REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))

_HEADER_GRANULES = (0, (1 << 64) - 1)
"""The granule positions of pages with headers only: position 0, or no end of a packet on the page."""

_UNMARKED = Notice(
    "END_UNMARKED", "The last page is not marked as the end of the recording: it may be truncated."
)
_BEGINNING_MISSING = Notice(
    "BEGINNING_MISSING", "The recording was cut out of a longer one: pages before its first one are missing."
)


class _Page(NamedTuple):
    offset: int
    length: int
    """In bytes, as stated. The last page may reach beyond the end of the file."""
    flags: int
    granule: int
    serial: int
    """The number of its logical stream: several may be multiplexed."""
    sequence: int
    is_intact: bool
    """Whether its checksum is right."""
    is_audio: bool
    """Whether it begins a stream of audio, if it begins one."""

    @property
    def end(self) -> int:
        return self.offset + self.length


@dataclass
class _Link:
    """A link of the chain, and what is known of the logical stream in it that is decoded."""

    start: int
    page: _Page
    """The last page of the stream."""
    is_audio: bool
    others: set[int] = field(default_factory=set)
    """Serial numbers of the other streams."""
    has_audio: bool = False
    """Whether a page with samples has come."""

    @property
    def has_ended(self) -> bool:
        return bool(self.page.flags & _END)

    def begin(self, page: _Page) -> None:
        """Add a stream that begins in this link: the first one with audio is decoded."""
        check_parts(len(self.others) + 1)
        if page.is_audio and not self.is_audio:
            self.others.add(self.page.serial)
            self.page, self.is_audio = page, True
        else:
            self.others.add(page.serial)


@dataclass
class _Chain:
    """The links up to some page."""

    links: list[_Link] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    end: int = 0
    """Where the last page ends."""
    skipped: int = 0
    """Bytes between the pages."""
    was_begin: bool = False

    def append(self, page: _Page) -> bool:
        """Append a page; return False instead if it, or one before it, is damaged or missing."""
        gap = page.offset - self.end
        self.skipped += gap
        is_begin = bool(page.flags & _BEGIN) and page.is_intact
        # Several streams may begin together; a link begins where pages that begin follow others.
        if is_begin and self.was_begin:
            self.links[-1].begin(page)
        elif is_begin:
            if self.links and not self.links[-1].has_ended:
                if gap:
                    return False
                append_new(self.notices, _UNMARKED)
            self.links.append(_Link(page.offset, page, page.is_audio))
            check_parts(len(self.links))
        elif self.links:
            if not self._continue(self.links[-1], page):
                return False
        elif page.is_intact:
            append_new(self.notices, _BEGINNING_MISSING)
        else:
            return False
        self.end, self.was_begin = page.end, is_begin
        return True

    def _continue(self, link: _Link, page: _Page) -> bool:
        if page.serial in link.others:
            return True
        if page.serial != link.page.serial or not page.is_intact:
            return False
        if page.sequence != (link.page.sequence + 1) % (1 << 32):
            # A recording of a radio station has the headers, and then pages from its middle.
            if link.has_audio or self.skipped:
                return False
            append_new(self.notices, _BEGINNING_MISSING)
        link.page = page
        link.has_audio = link.has_audio or page.granule not in _HEADER_GRANULES
        return True


def ogg_layout(file: BinaryIO, size: int) -> Layout:
    """Return the layout of an Ogg file of `size` bytes: one part for each link of the chain.

    It ends before the first page that is damaged or missing in the stream that is decoded.
    """
    chain = _Chain()
    layout = Layout([], chain.notices)
    for page in _pages(file, size):
        if page.end > size:
            layout.missing = missing_bytes(page.end - size)
            break
        if not chain.append(page):
            layout.missing = DAMAGED
            break
    if not chain.links:
        # Without a beginning there is nothing to decode: the decoder says so.
        return Layout([Part(FileView(file, [(0, 0 if layout.missing == DAMAGED else size)]))])
    if layout.missing is None:
        _append_end(layout, chain, file, size)
    end = chain.links[-1].page.end if layout.missing == DAMAGED else chain.end
    starts = [link.start for link in chain.links]
    for start, stop in zip(starts, [*starts[1:], end], strict=True):
        layout.parts.append(Part(FileView(file, [(start, stop - start)])))
    if chain.skipped and layout.missing != DAMAGED:
        layout.notices.append(damaged_bytes(chain.skipped, "Ogg pages"))
    return layout


def _append_end(layout: Layout, chain: _Chain, file: BinaryIO, size: int) -> None:
    """Append to a layout what is unusual about the end of the file."""
    file.seek(chain.end)
    following, has_ended = file.read(4), chain.links[-1].has_ended
    if following and b"OggS".startswith(following):
        layout.missing = "The recording is truncated inside the header of an Ogg page."
    elif not has_ended and (following or chain.skipped):
        layout.missing = DAMAGED
    elif following:
        layout.notices.append(trailing_bytes(size - chain.end))
    elif not has_ended and _UNMARKED not in layout.notices:
        layout.notices.append(_UNMARKED)


def _pages(file: BinaryIO, size: int) -> Iterator[_Page]:
    """Iterate over the pages. The last one may reach beyond the end."""
    position = 0
    while position + _HEADER_BYTES <= size:
        file.seek(position)
        data = file.read(_HEADER_BYTES + 255)
        if data[:4] != b"OggS" or len(data) < _HEADER_BYTES:
            found = _find(file, position + 1, size)
            if found is None:
                return
            position = found
            continue
        body = _HEADER_BYTES + data[26]
        length = body + sum(data[_HEADER_BYTES:body])
        data = data[:length] + file.read(max(0, length - len(data)))
        flags, granule, serial, sequence = _FIELDS.unpack_from(data)
        is_audio = is_ogg_audio(data[body : body + 8])
        yield _Page(position, length, flags, granule, serial, sequence, _is_intact(data), is_audio)
        position += length


def _is_intact(page: bytes) -> bool:
    """Return whether the checksum of a page is right.

    zlib computes a CRC with the same polynomial from the last bit of each byte to the first, and inverts it
    at the beginning and the end.
    """
    stated = int.from_bytes(page[_CHECKSUM].translate(_REVERSED_BITS), "big")
    unsigned = page[: _CHECKSUM.start] + bytes(4) + page[_CHECKSUM.stop :]
    return zlib.crc32(unsigned.translate(_REVERSED_BITS), 0xFFFF_FFFF) ^ 0xFFFF_FFFF == stated


def _find(file: BinaryIO, start: int, size: int) -> int | None:
    """Return where the next page begins, if there is one."""
    block_bytes = _LEAST_BLOCK_BYTES  # at first: there may be a damaged byte in front of every page
    while start < size:
        file.seek(start)
        block = file.read(block_bytes)
        if (at := block.find(b"OggS")) >= 0:
            return start + at
        if len(block) < block_bytes:
            return None
        start += len(block) - 3
        block_bytes = min(2 * block_bytes, _BLOCK_BYTES)
    return None
