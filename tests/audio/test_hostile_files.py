"""Files that are made to cost: their structure is read in bounded time and memory."""

from __future__ import annotations

import functools
import io
import struct
import time
import tracemalloc
from typing import TYPE_CHECKING

import numpy as np
import pytest
from earmark_audio import AudioFileError
from earmark_audio.beginnings import BEGINNINGS, joined_layout
from earmark_audio.errors import TooLongFileError
from earmark_audio.flac import flac_layout
from earmark_audio.mp3 import mp3_layout
from earmark_audio.mpeg import frame_bytes
from earmark_audio.ogg import ogg_layout
from earmark_audio.recording_parts import MAX_PARTS
from earmark_audio.wav import chunked_layout, iff_layout

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from earmark_audio.recording_parts import Layout

SIZE = 1 << 20
MOST_CPU_S = 10.0  # each takes less than 0.3 s; before they were bounded, some took minutes
MOST_BYTES = 8 << 20


def frame(head: bytes) -> bytes:
    return head + bytes(frame_bytes(head) - len(head))


FRAME = frame(bytes([0xFF, 0xF3, 0x14, 0xC0]))  # 24 bytes, the shortest
OTHER = frame(bytes([0xFF, 0xE3, 0x18, 0xC0]))


def ogg_page(sequence: int, flags: int = 0, serial: int = 1) -> bytes:
    """Return a page without a body, whose checksum is right."""
    page = struct.pack("<4sxBQIIIx", b"OggS", flags, 1, serial, sequence, 0)
    crc = 0
    for byte in page:
        crc = (crc << 8 ^ CRC[crc >> 24 ^ byte]) & 0xFFFF_FFFF
    return page[:22] + struct.pack("<Ix", crc)


def _shifted(crc: int) -> int:
    for _ in range(8):
        crc = crc << 1 ^ (0x104C1_1DB7 if crc >> 31 else 0)
    return crc


CRC = [_shifted(byte << 24) for byte in range(256)]
FIRST_PAGE = ogg_page(0, 2)
DAMAGED_PAGE = b"OggS" + bytes(22) + b"\xff" * 256
PAGES = [ogg_page(1 + number) for number in range(SIZE // 28)]
ID3 = b"ID3\4\0\0\0\0\0\0"
WAV = b"RIFF" + struct.pack("<I", 38) + b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 16_000, 32_000, 2, 16)
WAV += b"data" + struct.pack("<I", 2) + b"\0\0"
NOISE = np.random.default_rng(1).bytes(SIZE)

FILES = {
    "mp3 of 0xFF": (mp3_layout, ID3 + b"\xff" * SIZE),
    "mp3, frames, then 0xFF 0x00": (mp3_layout, 4 * FRAME + b"\xff\0" * (SIZE // 2)),
    "mp3 of headers": (mp3_layout, ID3 + b"\xff\xfb\x90\x00" * (SIZE // 4)),
    "mp3 of noise": (mp3_layout, ID3 + NOISE),
    "mp3 of the shortest frames": (mp3_layout, FRAME * (SIZE // len(FRAME))),
    "mp3, a damaged byte after each frame": (mp3_layout, (FRAME + b"x") * (SIZE // 25)),
    "mp3, a tag after each frame": (mp3_layout, (FRAME + b"TAG" + bytes(125)) * (SIZE // 152)),
    "mp3 of lyrics without an end": (mp3_layout, 4 * FRAME + b"LYRICSBEGIN" * (SIZE // 11)),
    "mp3 of two rates": (mp3_layout, (2 * FRAME + 2 * OTHER) * (SIZE // 192)),
    "flac of beginnings": (flac_layout, b"fLaC\0\0\0\x22" * (SIZE // 8)),
    "flac of zeros": (flac_layout, b"fLaC\0\0\0\x22" + bytes(SIZE)),
    "flv of beginnings": (
        functools.partial(joined_layout, pattern=BEGINNINGS["flv"]),
        b"FLV\1\4\0\0\0\x09\0\0\0\0" * (SIZE // 13),
    ),
    "wavpack of beginnings": (
        functools.partial(joined_layout, pattern=BEGINNINGS["wv"]),
        b"wvpk" * (SIZE // 4),
    ),
    "caf of beginnings": (chunked_layout, b"caff\0\1\0\0" * (SIZE // 8)),
    "wav of files": (iff_layout, WAV * (SIZE // len(WAV))),
    "wav of chunks": (iff_layout, b"RIFF\xff\xff\xff\x7fWAVE" + b"junk\0\0\0\0" * (SIZE // 8)),
    "ogg of pages": (ogg_layout, FIRST_PAGE + b"".join(PAGES)),
    "ogg of beginnings": (ogg_layout, (FIRST_PAGE + PAGES[0]) * (SIZE // 54)),
    "ogg of streams": (ogg_layout, FIRST_PAGE * (SIZE // 27)),
    "ogg of serial numbers": (ogg_layout, b"".join(ogg_page(0, 2, number) for number in range(SIZE // 27))),
    "ogg, a damaged byte after each page": (ogg_layout, FIRST_PAGE + b"x".join(PAGES)),
    "ogg of damaged pages": (ogg_layout, FIRST_PAGE + ogg_page(0, 2, 0) + DAMAGED_PAGE * (SIZE // 282)),
    "ogg of noise": (ogg_layout, FIRST_PAGE + NOISE),
}


@pytest.mark.parametrize(("layout", "data"), FILES.values(), ids=FILES)
def test_a_file_costs_no_more_than_its_size_allows(
    layout: Callable[[io.BytesIO, int], Layout], data: bytes
) -> None:
    tracemalloc.start()
    began_s = time.process_time()
    try:
        try:
            parts = len(layout(io.BytesIO(data), len(data)).parts)
        except AudioFileError:
            parts = 0
        assert time.process_time() - began_s < MOST_CPU_S
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    finally:
        tracemalloc.stop()
    assert parts <= MAX_PARTS


@pytest.mark.parametrize(
    ("layout", "one"), [(flac_layout, b"fLaC\0\0\0\x22" + bytes(34)), (iff_layout, WAV)], ids=["flac", "wav"]
)
def test_very_many_joined_recordings_are_rejected_and_many_are_read(
    layout: Callable[[io.BytesIO, int], Layout], one: bytes
) -> None:
    many = one * MAX_PARTS
    assert len(layout(io.BytesIO(many), len(many)).parts) == MAX_PARTS
    with pytest.raises(AudioFileError, match="more than 1000 joined recordings"):
        layout(io.BytesIO(many + one), len(many + one))


def test_an_mp3_is_read_no_further_than_it_may_be_long() -> None:
    class Counted(io.BytesIO):
        count = 0

        def read(self, size: int | None = -1, /) -> bytes:
            data = super().read(size)
            self.count += len(data)
            return data

    file = Counted(FRAME * 700_000)  # of 24 ms
    with pytest.raises(TooLongFileError) as caught:
        mp3_layout(file, len(file.getbuffer()), longest_s=300.0)
    assert 300 < caught.value.seconds < 300.1
    assert file.count < 2 << 20


def test_a_file_that_becomes_shorter_while_it_is_read_ends_there() -> None:
    data = 4 * FRAME + b"\xff\0" * 1000
    assert len(mp3_layout(io.BytesIO(data), 10 * len(data)).parts) == 1
    pages = FIRST_PAGE + PAGES[0] + b"x" * 1000
    assert len(ogg_layout(io.BytesIO(pages), 10 * len(pages)).parts) == 1


def test_damaged_bytes_in_the_middle_of_an_mp3_are_skipped_and_counted() -> None:
    data = 50 * FRAME + b"\xff" * 40_000 + bytes(1000) + 50 * FRAME
    layout = mp3_layout(io.BytesIO(data), len(data))
    # A frame that nothing follows counts as damaged, too, and padding does not.
    assert [part.view.size for part in layout.parts] == [99 * len(FRAME)]
    assert [notice.message.split()[0] for notice in layout.notices] == [str(40_000 + len(FRAME))]


def sparse_wav(path: Path, stated_bytes: int, present_bytes: int) -> Layout:
    """Return the layout of a WAV whose header states one length, and which has another one."""
    form_bytes = (stated_bytes + 36) & 0xFFFF_FFFF
    with path.open("wb+") as file:
        file.write(b"RIFF" + struct.pack("<I", form_bytes) + WAV[8:40])
        file.write(struct.pack("<I", stated_bytes & 0xFFFF_FFFF))
        file.truncate(44 + present_bytes)
        return iff_layout(file, 44 + present_bytes)


@pytest.mark.parametrize("stated_bytes", [2_000_000_000, 3_000_000_000, 4_200_000_000])
def test_a_truncated_wav_of_gigabytes_is_reported(tmp_path: Path, stated_bytes: int) -> None:
    layout = sparse_wav(tmp_path / "a.wav", stated_bytes, 1_500_000_000)
    assert layout.missing is not None
    assert f"its last {stated_bytes - 1_500_000_000} bytes are missing" in layout.missing


@pytest.mark.parametrize("placeholder", [0x7FFF_F000, 0x8000_0000, 0xFFFF_FFFF])
@pytest.mark.parametrize("present_bytes", [1_000_000, 3_000_000_000])
def test_a_placeholder_of_a_length_means_all_that_follows(
    tmp_path: Path, placeholder: int, present_bytes: int
) -> None:
    layout = sparse_wav(tmp_path / "a.wav", placeholder, present_bytes)
    assert layout.missing is None
    assert [part.view.size for part in layout.parts] == [44 + present_bytes]
    assert layout.parts[0].view.patches[40] == struct.pack("<I", present_bytes)


def test_a_wav_beyond_4_gib_states_that_its_end_is_not_read(tmp_path: Path) -> None:
    layout = sparse_wav(tmp_path / "a.wav", 5_000_000_000, 5_000_000_000)
    assert layout.missing is not None
    assert "Only the first 4 GiB were read" in layout.missing
    assert [notice.reason for notice in layout.notices] == ["HEADER_UNFINISHED"]
