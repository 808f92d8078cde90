"""Ogg (RFC 3533): the pages of a file, the links of a chain, and whether the last page is whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

from earmark_audio.file_view import FileView
from earmark_audio.notices import Notice, damaged_bytes, trailing_bytes
from earmark_audio.recording_parts import Layout, Part, check_parts

if TYPE_CHECKING:
    from collections.abc import Iterator

_HEADER_BYTES = 27
_BEGIN, _END = 0x02, 0x04
_LEAST_BLOCK_BYTES, _BLOCK_BYTES = 1 << 10, 1 << 20

_UNMARKED = Notice(
    "END_UNMARKED", "The last page is not marked as the end of the recording: it may be truncated."
)


def ogg_layout(file: BinaryIO, size: int) -> Layout:
    """Return the layout of an Ogg file of `size` bytes: one part for each link of the chain."""
    starts: list[int] = []
    end, whole_end, flags, skipped, was_begin = 0, 0, 0, 0, False
    for offset, length, page_flags in _pages(file, size):
        skipped += offset - end
        is_begin = bool(page_flags & _BEGIN)
        # Several streams may begin together; a link begins where pages that begin follow others.
        if is_begin and not was_begin:
            starts.append(offset)
            check_parts(len(starts))
        end, flags, was_begin = offset + length, page_flags, is_begin
        whole_end = end if end <= size else whole_end
    if not starts:
        return Layout([Part(FileView(file, [(0, size)]))])
    layout = Layout([])
    for start, stop in zip(starts, [*starts[1:], max(whole_end, starts[-1])], strict=True):
        layout.parts.append(Part(FileView(file, [(start, stop - start)])))
    if skipped:
        layout.notices.append(damaged_bytes(skipped, "Ogg pages"))
    if end > size:
        layout.missing = f"The recording is truncated: its last {end - size} bytes are missing."
    elif size > end:
        _append_trailer(layout, file, end, size)
    elif not flags & _END:
        layout.notices.append(_UNMARKED)
    return layout


def _append_trailer(layout: Layout, file: BinaryIO, end: int, size: int) -> None:
    file.seek(end)
    if b"OggS".startswith(file.read(4)) or size - end < _HEADER_BYTES:
        layout.missing = "The recording is truncated inside the header of an Ogg page."
    else:
        layout.notices.append(trailing_bytes(size - end))


def _pages(file: BinaryIO, size: int) -> Iterator[tuple[int, int, int]]:
    """Iterate over the pages: offset, length as stated, flags. The last one may reach beyond the end."""
    position = 0
    while position + _HEADER_BYTES <= size:
        file.seek(position)
        header = file.read(_HEADER_BYTES + 255)
        if header[:4] != b"OggS":
            found = _find(file, position + 1, size)
            if found is None:
                return
            position = found
            continue
        body = _HEADER_BYTES + header[26]
        length = body + sum(header[_HEADER_BYTES:body])
        yield position, length, header[5]
        position += length


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
