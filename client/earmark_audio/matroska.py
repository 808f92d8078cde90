"""WebM and Matroska (RFC 8794, RFC 9559): whether the file ends where its elements do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from earmark_audio.errors import LAST_PACKET_INCOMPLETE, missing_bytes
from earmark_audio.recording_parts import MAX_ELEMENTS

if TYPE_CHECKING:
    from earmark_audio.recording_parts import Layout

_SEGMENT, _CLUSTER = 0x18538067, 0x1F43B675
_HEADER_BYTES = 12
"""The longest header of an element: an ID of 4 bytes, and a length of 8."""


def check_matroska_end(layout: Layout) -> None:
    """Note in the layout of a WebM or Matroska file whether its last element is incomplete.

    What is recorded live may state no length for the segment, nor for its clusters: then their elements do.
    """
    view = layout.parts[-1].view
    position = 0
    for _ in range(MAX_ELEMENTS):
        if position >= view.size:
            return
        view.seek(position)
        name, length, header_bytes = _header(view.read(_HEADER_BYTES))
        if not header_bytes or (length is None and name not in (_SEGMENT, _CLUSTER)):
            return  # other bytes
        position += header_bytes + (length or 0)
        if position > view.size:
            is_stated = name == _SEGMENT
            layout.missing = missing_bytes(position - view.size) if is_stated else LAST_PACKET_INCOMPLETE


def _header(head: bytes) -> tuple[int, int | None, int]:
    """Return ID and length of the element that begins with `head`, and the bytes of both; 0 if it is none.

    The zeros that the first byte begins with are the number of its further bytes. The length is None if it
    is not stated.
    """
    id_bytes = 9 - head[0].bit_length()
    name = int.from_bytes(head[:id_bytes], "big")
    first = head[id_bytes] if len(head) > id_bytes else 0xFF  # the file may end within the header
    if id_bytes > 4 or not first:
        return 0, None, 0
    length_bytes = 9 - first.bit_length()
    end = id_bytes + length_bytes
    if len(head) < end:
        return name, 0, end
    unknown = (1 << 7 * length_bytes) - 1
    length = int.from_bytes(head[id_bytes:end], "big") & unknown
    is_unknown = length == unknown or (name == _SEGMENT and not length)
    return name, None if is_unknown else length, end
