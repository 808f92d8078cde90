"""AVI, ASF (WMV, WMA), FLV and MPEG-TS: what their structure says of the end and of gaps, not FFmpeg.

Sources: AVI RIFF File Reference (Microsoft); Advanced Systems Format (Microsoft, 2004), section 3.2; Video
File Format Specification 10.1 (Adobe), annex E; ISO/IEC 13818-1, section 2.4.3.2.
"""

from __future__ import annotations

import struct
from typing import BinaryIO

from earmark_audio.errors import LAST_PACKET_INCOMPLETE, missing_bytes
from earmark_audio.file_view import FileView
from earmark_audio.formats import HEAD_BYTES, ts_packet_bytes
from earmark_audio.notices import PACKET_INCOMPLETE, report_gaps
from earmark_audio.recording_parts import MAX_ELEMENTS, Layout, Part
from earmark_audio.wav import is_placeholder

_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_HEADER_BYTES = 1 << 16
_FLV_HEADER_BYTES, _FLV_TAG_HEADER_BYTES = 9, 11
_FLV_FILE_SIZE = b"filesize\0"
_FLV_TAGS = (8, 9, 18)
"""Audio, video and metadata."""
_MAX_BYTES = 1 << 62


def check_asf_end(layout: Layout) -> None:
    """Note in the layout of an ASF file whether its last part is shorter than its header states.

    GUID (16 bytes), length (8), file's GUID (16), file's size (8), dates and lengths (40), flags (4).
    """
    view = layout.parts[-1].view
    view.seek(0)
    head = view.read(_HEADER_BYTES)
    at = head.find(_FILE_PROPERTIES)
    stated_bytes = int.from_bytes(head[at + 40 : at + 48], "little")
    is_broadcast = head[at + 88 : at + 89] and head[at + 88] & 1
    if at >= 0 and not is_broadcast and view.size < stated_bytes:
        layout.missing = missing_bytes(stated_bytes - view.size)


def check_flv_end(layout: Layout) -> None:
    """Note in the layout of an FLV file whether its last part ends within a tag, or before its stated size.

    A tag is preceded by the length of the one before (4 bytes): its type (1), the length of its content (3),
    timestamp and stream (7), content. The first one may state the size of the file.
    """
    view = layout.parts[-1].view
    view.seek(0)
    head = view.read(_HEADER_BYTES)
    at = head.find(_FLV_FILE_SIZE) + len(_FLV_FILE_SIZE)
    stated_bytes = struct.unpack(">d", head[at : at + 8])[0] if at >= len(_FLV_FILE_SIZE) else 0.0
    if view.size < stated_bytes < _MAX_BYTES:
        layout.missing = missing_bytes(int(stated_bytes) - view.size)
        return
    position = _FLV_HEADER_BYTES + 4
    for _ in range(MAX_ELEMENTS):
        if position >= view.size:
            return
        view.seek(position)
        tag = view.read(4)
        if tag[0] not in _FLV_TAGS:
            return  # other bytes
        position += _FLV_TAG_HEADER_BYTES + int.from_bytes(tag[1:], "big")
        if position > view.size:
            layout.missing = LAST_PACKET_INCOMPLETE
        position += 4


def check_ts_end(layout: Layout) -> None:
    """Note in the layout of a transport stream whether it ends within a packet."""
    view = layout.parts[-1].view
    view.seek(0)
    packet_bytes = ts_packet_bytes(view.read(HEAD_BYTES))
    if packet_bytes and view.size % packet_bytes:
        layout.notices.append(PACKET_INCOMPLETE)


def avi_layout(file: BinaryIO, size: int) -> Layout:
    """Return the layout of an AVI file of `size` bytes, whose header counts no chunks without audio.

    A chunk is a name (4 bytes), its length (4), content, padding. Where a codec has a variable rate, each
    chunk of audio lasts as long as another one, and a chunk of no bytes is a gap: the header counts it, but
    FFmpeg leaves it out. Of a truncated file FFmpeg estimates the length.
    """
    layout = Layout([Part(FileView(file, [(0, size)]))])
    streams, empty, header_at, header, chunk = 0, 0, 0, b"", b""
    position = 0
    while position + 8 <= size:
        file.seek(position)
        name, length = file.read(4), int.from_bytes(file.read(4), "little")
        if name == b"RIFF" and position and file.read(4) == b"AVI ":
            break  # another file
        if name in (b"RIFF", b"LIST"):
            if name == b"LIST" and file.read(4) == b"movi":
                missing = position + 8 + length - size
                if missing > 0 and not is_placeholder(length):
                    layout.missing = missing_bytes(missing)
                if not chunk:
                    break
            position += 12
            continue
        if name == b"strh":
            content = file.read(48)
            if content[:4] == b"auds" and not header:
                header_at, header = position + 8, content
                # A stream whose header states the size of a sample has no gaps.
                chunk = b"" if content[44:] != bytes(4) else b"%02dwb" % streams
            streams += 1
        elif name == chunk and not length:
            empty += 1
        position += 8 + length + length % 2
    scale, rate, stated = (int.from_bytes(header[at : at + 4], "little") for at in (20, 24, 32))
    if empty and rate:
        layout.parts[0].view.patches = {header_at + 32: max(0, stated - empty).to_bytes(4, "little")}
        report_gaps(empty * scale / rate, layout.notices)
    return layout
