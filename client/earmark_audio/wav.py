"""WAV and similar formats (RF64, Wave64, AIFF, AU, CAF): the length in the header, against that of the file.

Recorders that lose power, and programs that write into a pipe, leave a length of zero or a placeholder.
Downloads that break off leave a length that is too large. Decoders believe the header; here its length fields
are replaced by what the file holds. Sources: RIFF (IBM and Microsoft, 1991), RF64 (EBU Tech 3306), AIFF 1.3
(Apple, 1989).
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, BinaryIO, Literal

from earmark_audio.errors import missing_bytes
from earmark_audio.file_view import FileView
from earmark_audio.notices import MORE_AUDIO, Notice, append_new, trailing_bytes
from earmark_audio.recording_parts import Layout, Part, check_parts

if TYPE_CHECKING:
    from collections.abc import Iterator

_PLACEHOLDERS = (range(0x7F00_0000, 0x8100_0000), range(0xFF00_0000, 0x1_0000_0000))
"""Programs that cannot return to the header write a number near 2 or 4 GiB for the length."""
_WRAPPED_BYTES = 1 << 32
"""Other programs write the length modulo 4 GiB."""
_BEYOND_4_GIB = (
    "Only the first 4 GiB were read: a header with lengths of 32 bits cannot state more. Convert the "
    "recording, for example with `ffmpeg -i INPUT out.flac`."
)

_EXTENSIBLE, _SUBFORMAT_AT = b"\xfe\xff", 24
"""The tag of a `fmt ` chunk whose tag proper is further behind, and where it is."""
_MAX_CHUNKS = 1000
"""Far more than any program writes: a file of nothing but chunks must not keep a server busy."""

W64_GUID = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"
"""A Wave64 file begins with it."""

UNFINISHED = Notice(
    "HEADER_UNFINISHED",
    "The header was never finished, so its length is not known: everything that follows it is read.",
)


_NUT_INDEX = b"NX\xdd\x67\x2f\x23\xe6\x4e"
_INDEX_MISSING = Notice("END_UNMARKED", "No index marks the end of the recording: it may be truncated.")

_CHUNK_NAME = re.compile(
    rb"fmt |data|fact|LIST|ds64|bext|cue |smpl|inst|PEAK|JUNK|junk|PAD |iXML|axml|chna|_PMX|[iI][dD]3 |"
    rb"COMM|SSND|FVER|MARK|INST|COMT|NAME|AUTH|ANNO|\(c\) |CHAN|AESD|APPL|RIFF|RIFX|RF64|BW64|FORM"
)
"""The usual chunks of WAV and AIFF, and the beginning of another file."""

PADDING_LOOKAHEAD_BYTES = 5
"""How many bytes after a chunk tell whether it is padded."""

LOOKAHEAD_BYTES = 1 << 16
"""How much after the stated end of the samples tells whether they go on."""

_LEAST_AUDIO_BYTES = 256
"""Fewer bytes without a name are padding: no word is in them."""


def audio_goes_on(
    following: bytes, left: int, order: Literal["little", "big"], *, length_at: int = 4
) -> bool:
    """Return whether samples go on after the end that the header states.

    following: up to LOOKAHEAD_BYTES after that end. left: bytes up to the end of the file that it states.
    length_at: where in a chunk the lower 32 bits of its length are. Other chunks, with their names, tags,
    other files or padding may follow.
    """
    content = following.lstrip(b"\0")
    if left < _LEAST_AUDIO_BYTES or not content:
        return False
    left -= len(following) - len(content)
    if content.startswith((b"ID3", b"TAG", b"APETAGEX", b"LYRICSBEGIN", b"caff", W64_GUID)):
        return False
    # A chunk may be preceded by a byte of padding. An unfinished one may state a length that is too large.
    return not any(
        re.match(rb"(LIST|[iI][dD]3 |bext|cue |junk|JUNK|PAD |iXML|_PMX)", content[at:])
        or (
            re.match(rb"[ -~]{4}", content[at:])
            and int.from_bytes(content[at + length_at : at + length_at + 4], order) <= left - at
        )
        or is_iff(content[at : at + 12])
        for at in (0, 1)
    )


def padding_bytes(length: int, following: bytes) -> int:
    """Return how many bytes of padding follow a chunk of WAV or AIFF: one if its length is odd.

    following: up to PADDING_LOOKAHEAD_BYTES after the chunk. Some recorders write no padding: then the name
    of the next chunk is there.
    """
    is_missing = _CHUNK_NAME.match(following) and not _CHUNK_NAME.match(following[1:])
    return 0 if is_missing else length % 2


def is_placeholder(length: int) -> bool:
    """Return whether a length of 32 bits stands for one that was not known."""
    return any(length in numbers for numbers in _PLACEHOLDERS)


@dataclass(frozen=True)
class _Field:
    """A length in the header."""

    offset: int
    size: int
    order: Literal["little", "big"]
    value: int

    def patch(self, value: int) -> tuple[int, bytes]:
        limited = min(value, (1 << 8 * self.size) - 1)
        return self.offset, limited.to_bytes(self.size, self.order)


def iff_layout(file: BinaryIO, size: int) -> Layout:
    """Return the layout of a RIFF, RIFX, RF64, BW64 or FORM file of `size` bytes: a part for each file."""
    layout = Layout([])
    start = 0
    while start < size:
        file.seek(start)
        magic = file.read(12)
        if not is_iff(magic):
            if start:
                _append_trailer(layout, file, start, size)
            break
        start = _append_form(layout, file, start, size, magic)
    return layout


def au_layout(file: BinaryIO, size: int) -> Layout:
    """Return the layout of an AU file of `size` bytes: a part for each joined one.

    Magic, data offset (4 bytes), data size (4; 0xFFFFFFFF: not stated).
    """
    layout = Layout([])
    start: int | None = 0
    while start is not None:
        start = _append_au(layout, file, start, size)
    return layout


def _append_au(layout: Layout, file: BinaryIO, start: int, size: int) -> int | None:
    """Append the part that begins at `start`; return where another file follows it, if one does."""
    file.seek(start)
    head = file.read(24)
    order: Literal["little", "big"] = "big" if head[:4] == b".snd" else "little"
    content = start + int.from_bytes(head[4:8], order)
    stated = _Field(8, 4, order, int.from_bytes(head[8:12], order))
    available = max(0, size - content)
    patches = dict([stated.patch(available)])
    end, following = size, None
    if 0 < stated.value < available and not is_placeholder(stated.value):
        data_end = content + stated.value
        file.seek(data_end)
        if file.read(4) in (b".snd", b"dns."):
            end = following = data_end
        elif _bytes_that_go_on(file, data_end, size, order):
            append_new(layout.notices, MORE_AUDIO)
        else:
            end = data_end
            _append_trailer(layout, file, end, size)
        patches = {} if end < size else patches
    elif stated.value == 0 and available:
        layout.notices.append(UNFINISHED)
    elif available < stated.value and not is_placeholder(stated.value):
        _cut_off(layout, stated.value, available)
    layout.parts.append(Part(FileView(file, [(start, end - start)], patches=patches)))
    check_parts(len(layout.parts))
    return following


def check_sox_end(layout: Layout) -> None:
    """Note in the layout of a SoX file whether its last part is shorter than its header states.

    Magic, length of the header without it (4 bytes), count of samples (8, 0: not stated), of 4 bytes each.
    """
    view = layout.parts[-1].view
    view.seek(0)
    head = view.read(16)
    order: Literal["little", "big"] = "little" if head[:4] == b".SoX" else "big"
    stated_bytes = 4 * int.from_bytes(head[8:], order)
    available = view.size - 4 - int.from_bytes(head[4:8], order)
    if 0 < available < stated_bytes < 1 << 62:
        _cut_off(layout, stated_bytes, available)


def check_nut_end(layout: Layout) -> None:
    """Note in the layout of a NUT file whether no index ends it: its header states no length.

    The file ends with the bytes from the beginning of the index to its end (8 bytes), and a checksum (4).
    """
    view = layout.parts[-1].view
    view.seek(view.size - 12)
    index = view.size - int.from_bytes(view.read(8), "big")
    view.seek(index)
    if index < 0 or view.read(len(_NUT_INDEX)) != _NUT_INDEX:
        layout.notices.append(_INDEX_MISSING)


def chunked_layout(file: BinaryIO, size: int) -> Layout:
    """Return the layout of a Wave64 or CAF file of `size` bytes, whose lengths have 64 bits.

    Wave64: a chunk is a GUID (16 bytes), its length with its header (8, little-endian), content, padding.
    CAF: a name (4 bytes), the content's length (8, big-endian; -1: not stated), content.
    """
    layout = Layout([])
    start: int | None = 0
    while start is not None:
        start = _append_chunked(layout, file, start, size)
    return layout


def _append_chunked(layout: Layout, file: BinaryIO, start: int, size: int) -> int | None:
    """Append the part that begins at `start`; return where another file follows it, if one does."""
    file.seek(start)
    magic = file.read(24)
    is_caf = magic[:4] == b"caff"
    order: Literal["little", "big"] = "big" if is_caf else "little"
    name_bytes, position, low_at = (4, start + 8, 8) if is_caf else (16, start + 40, 16)
    form_end = size if is_caf else min(size, start + int.from_bytes(magic[16:], order))
    patches: dict[int, bytes] = {}
    end, following = size, None
    for _ in range(_MAX_CHUNKS):
        if position + name_bytes + 8 > size:
            break
        file.seek(position)
        header = file.read(name_bytes + 8)
        if header[:4] == b"caff" if is_caf else header.startswith(W64_GUID):
            end, following = min(end, position), position
            break
        stated = _Field(position - start + name_bytes, 8, order, int.from_bytes(header[name_bytes:], order))
        own = 0 if is_caf else len(header)
        content = position + len(header) - own
        patches |= _format_proper(header + file.read(_SUBFORMAT_AT + 2), len(header), position - start)
        if header[:4] == b"data":
            available = size - content
            if not own < stated.value <= available:
                patches |= [stated.patch(available)]
                if is_caf and stated.value == (1 << 64) - 1:  # the format allows that
                    break
                if stated.value <= own or stated.value >= 1 << 62:
                    layout.notices.append(UNFINISHED)
                else:
                    _cut_off(layout, stated.value, available)
                break
            if left := _bytes_that_go_on(file, content + stated.value, form_end, order, length_at=low_at):
                append_new(layout.notices, MORE_AUDIO)
                stated = replace(stated, value=stated.value + left)
                patches |= [stated.patch(stated.value)]
            if not is_caf:
                end = content + stated.value  # the decoder takes what follows in a Wave64 file for samples
        length = max(own, stated.value)
        position = content + length + (0 if is_caf else -length % 8)
    if following is None and end < size:
        _append_trailer(layout, file, max(end, form_end), size)
    if not is_caf:
        patches[16] = (end - start).to_bytes(8, "little")
    layout.parts.append(Part(FileView(file, [(start, end - start)], patches=patches)))
    check_parts(len(layout.parts))
    return following


def _format_proper(chunk: bytes, content: int, offset: int) -> dict[int, bytes]:
    """Return the patch for a `fmt ` chunk of Wave64 at `offset` whose tag proper is further behind.

    libsndfile looks for that in WAV only, and takes floats for integers.
    """
    is_extensible = chunk[:4] == b"fmt " and chunk[content : content + 2] == _EXTENSIBLE
    tag = chunk[content + _SUBFORMAT_AT :]
    return {offset + content: tag} if is_extensible and len(tag) == 2 else {}


def is_iff(magic: bytes) -> bool:
    """Return whether a file that begins with `magic` is WAV, RF64 or AIFF."""
    if magic[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64"):
        return magic[8:12] == b"WAVE"
    return magic[:4] == b"FORM" and magic[8:12] in (b"AIFF", b"AIFC")


def _append_form(layout: Layout, file: BinaryIO, start: int, size: int, magic: bytes) -> int:
    """Append the part that begins at `start`; return where it ends."""
    order: Literal["little", "big"] = "big" if magic[:4] in (b"FORM", b"RIFX") else "little"
    form = _Field(4, 4, order, int.from_bytes(magic[4:8], order))
    wide: _Field | None = None
    patches: dict[int, bytes] = {}
    end = size
    # BW64 (ITU-R BS.2088) has the layout of RF64, but libsndfile does not know its name.
    renamed = {0: b"RF64"} if magic[:4] == b"BW64" else {}
    is_padded = magic[:4] not in (b"RF64", b"BW64")
    expected, joints = start + 12, list[tuple[int, int]]()
    for name, length, body in _chunks(file, start, size, order):
        if body - 8 != expected:
            joints.append((body - 8, body - 9) if is_padded else (body - 9, body - 8))
        expected = body + length + is_padded * length % 2
        if name == b"ds64":
            file.seek(body)
            sizes = file.read(16)
            form = _Field(body - start, 8, "little", int.from_bytes(sizes[:8], "little"))
            wide = _Field(body - start + 8, 8, "little", int.from_bytes(sizes[8:], "little"))
        if name not in (b"data", b"SSND"):
            continue
        data = wide or _Field(body - start - 4, 4, order, length)
        available = size - body
        form_end = start + 8 + form.value
        # A file that is cut off has lengths that agree with each other. Placeholders do not, or are huge.
        is_plausible = wide is not None or not is_placeholder(form.value)
        agree = is_plausible and data.value < form.value and form_end != size
        is_unfinished = data.value > available and not agree
        is_unfinished = is_unfinished or (
            data.value == 0
            and available > 0
            and form_end != size
            and _next_form(file, form_end, form_end, size) is None
        )
        extra = size - max(body + data.value, form_end)
        if wide is None and (extra >= _WRAPPED_BYTES or (extra > 1 and is_placeholder(data.value))):
            is_unfinished = is_unfinished or _next_form(file, body + data.value, form_end, size) is None
        if is_unfinished:
            if not is_placeholder(data.value):
                layout.notices.append(UNFINISHED)
        elif data.value > available:
            _cut_off(layout, data.value, available)
        elif left := _bytes_that_go_on(file, body + data.value, min(form_end, size), order):
            append_new(layout.notices, MORE_AUDIO)
            data = replace(data, value=data.value + left)
            patches = _data_patches(file, start, data, name)
        if is_unfinished or data.value > available:
            patches = _data_patches(file, start, replace(data, value=available), name)
            patches |= [form.patch(body - start + available - 8)]
            if wide is None and available >= _WRAPPED_BYTES:
                layout.missing = _BEYOND_4_GIB
        else:
            end = min(size, max(body + data.value + data.value % 2, form_end + form.value % 2))
            following = _next_form(file, body + data.value + data.value % 2, end, size)
            end = following if following is not None else end
        break
    layout.parts.append(Part(_joined_view(file, start, end, joints, patches | renamed)))
    check_parts(len(layout.parts))
    return end


def _joined_view(
    file: BinaryIO, start: int, end: int, joints: list[tuple[int, int]], patches: dict[int, bytes]
) -> FileView:
    """Return a view of a file that has padding after a chunk where libsndfile expects it.

    It expects some in WAV and AIFF, where the last byte of the chunk is there twice, and none in RF64.

    joints: where a run of bytes ends, and the next one begins. patches: by their offset in the file.
    """
    begins, ends = [start, *(begin for _, begin in joints)], [*(end for end, _ in joints), end]
    runs = [(one, other - one) for one, other in zip(begins, ends, strict=True)]
    moved = {
        at + sum(end - begin for end, begin in joints if begin - start <= at): patch
        for at, patch in patches.items()
    }
    return FileView(file, runs, patches=moved)


def _bytes_that_go_on(
    file: BinaryIO, data_end: int, end: int, order: Literal["little", "big"], *, length_at: int = 4
) -> int:
    """Return how many bytes of samples follow the stated end of the samples."""
    left = max(0, end - data_end)
    file.seek(data_end)
    following = file.read(min(LOOKAHEAD_BYTES, left))
    return left if audio_goes_on(following, left, order, length_at=length_at) else 0


def _data_patches(file: BinaryIO, start: int, data: _Field, name: bytes) -> dict[int, bytes]:
    """Return the patches for the length of the samples."""
    patches = dict([data.patch(data.value)])
    return patches | _aiff_frames(file, start, data.value - 8) if name == b"SSND" else patches


def _aiff_frames(file: BinaryIO, start: int, data_bytes: int) -> dict[int, bytes]:
    """Return the patch for COMM's number of frames: channels (2 bytes), frames (4), bits of a sample (2)."""
    file.seek(0, io.SEEK_END)
    for name, _, body in _chunks(file, start, file.tell(), "big"):
        if name == b"COMM":
            file.seek(body)
            common = file.read(8)
            frame_bytes = int.from_bytes(common[:2], "big") * ((int.from_bytes(common[6:8], "big") + 7) // 8)
            frames = max(0, data_bytes) // max(1, frame_bytes)
            return {body - start + 2: min(frames, 0xFFFF_FFFF).to_bytes(4, "big")}
    return {}


def _chunks(
    file: BinaryIO, start: int, size: int, order: Literal["little", "big"]
) -> Iterator[tuple[bytes, int, int]]:
    """Iterate over a form's chunks: name, stated length, and where the content begins."""
    position = start + 12
    for _ in range(_MAX_CHUNKS):
        if position + 8 > size:
            return
        file.seek(position)
        header = file.read(8)
        length = int.from_bytes(header[4:], order)
        yield header[:4], length, position + 8
        position += 8 + length
        file.seek(position)
        position += padding_bytes(length, file.read(PADDING_LOOKAHEAD_BYTES))


def _next_form(file: BinaryIO, data_end: int, end: int, size: int) -> int | None:
    """Return where another file begins, right behind the data or behind the form."""
    for position in (data_end, data_end - 1, end, end - 1):
        file.seek(max(0, position))
        if position + 12 <= size and is_iff(file.read(12)):
            return position
    return None


def _append_trailer(layout: Layout, file: BinaryIO, start: int, size: int) -> None:
    file.seek(start)
    if file.read(4096).strip(b"\0"):
        layout.notices.append(trailing_bytes(size - start))


def _cut_off(layout: Layout, stated_bytes: int, available: int) -> None:
    """Note that the samples end before the length that the header states."""
    layout.missing = missing_bytes(stated_bytes - available)
    layout.stated_share = stated_bytes / max(1, available)
