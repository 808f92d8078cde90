"""Headers of MPEG audio frames: layers II and III (MP2, MP3) and AAC in ADTS.

One header alone proves little: raw samples can begin with the same bytes. Each header states where the next
one begins, so frames that follow each other do. Sources: ISO/IEC 11172-3, 2.4.2.3 (frame header);
ISO/IEC 13818-3, 2.4.2.3 (low sampling frequencies); ISO/IEC 13818-7, 6.2 (ADTS).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_LAYER_2, _LAYER_3 = 2, 1
_CHAIN_FRAMES = 3

# Kilobits per second by the header's index: MPEG-1 layer II, MPEG-1 layer III, and MPEG-2 and 2.5.
_RATES_1_2 = (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 0)
_RATES_1_3 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0)
_RATES_2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0)
_HZ = (44_100, 48_000, 32_000)


def is_layer_3(head: bytes) -> bool:
    """Return whether `head` begins like a frame of layer III (MP3)."""
    return _is_header(head) and head[1] >> 1 & 3 == _LAYER_3


def frame_bytes(head: bytes) -> int:
    """Return the length of the frame of layer II or III with this header; 0 if it is not one."""
    if not _is_header(head):
        return 0
    is_mpeg1, is_layer_3 = head[1] >> 3 & 3 == 3, head[1] >> 1 & 3 == _LAYER_3
    rates = (_RATES_1_3 if is_layer_3 else _RATES_1_2) if is_mpeg1 else _RATES_2
    per_kbit = 72_000 if is_layer_3 and not is_mpeg1 else 144_000
    return per_kbit * rates[head[2] >> 4] // sample_rate_hz(head) + (head[2] >> 1 & 1)


def sample_rate_hz(head: bytes) -> int:
    """Return the sample rate that a frame's header states."""
    divisor = {3: 1, 2: 2, 0: 4}[head[1] >> 3 & 3]
    return _HZ[head[2] >> 2 & 3] // divisor


def frame_seconds(head: bytes) -> float:
    """Return the duration of the frame of layer III with this header."""
    return (1152 if head[1] >> 3 & 3 == 3 else 576) / sample_rate_hz(head)


def frame_kind(head: bytes) -> int:
    """Return version, layer, sample rate and whether it is mono, of a frame, as one number."""
    return (head[1] & 0x1E) << 8 | head[2] & 0x0C | (head[3] >> 6 == 3)


def adts_bytes(head: bytes) -> int:
    """Return the length of the ADTS frame with this header; 0 if it is not one."""
    if len(head) < 6 or head[0] != 0xFF or head[1] & 0xF6 != 0xF0 or head[2] >> 2 & 15 > 12:
        return 0
    length = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
    return length if length > 7 else 0


def find_frames(head: bytes) -> int | None:
    """Return where frames of layer II or III begin in the first bytes of a file; None if nowhere.

    A recording that was cut out of a longer one, or out of a radio stream, begins within a frame.
    """
    return _find_chain(head, frame_bytes, frame_kind)


def ends_within_frame(tail: bytes) -> bool:
    """Return whether a file of layer II or III whose last bytes are `tail` ends within a frame."""
    at = find_frames(tail)
    while at is not None and (length := frame_bytes(tail[at : at + 4])):
        at += length
    return at is not None and at > len(tail)


def begins_with_adts(head: bytes) -> bool:
    """Return whether a file that begins with `head` has ADTS frames."""
    return _find_chain(head, adts_bytes, lambda frame: frame[1] << 8 | frame[2] & 0xFC) is not None


def _is_header(head: bytes) -> bool:
    return (
        len(head) >= 4
        and head[0] == 0xFF
        and head[1] & 0xE0 == 0xE0
        and head[1] >> 3 & 3 != 1
        and head[1] >> 1 & 3 in (_LAYER_2, _LAYER_3)
        and head[2] >> 4 not in (0, 15)
        and head[2] >> 2 & 3 != 3
    )


def _find_chain(head: bytes, length: Callable[[bytes], int], kind: Callable[[bytes], int]) -> int | None:
    at = head.find(b"\xff")
    while at >= 0:
        if length(head[at : at + 8]) and _is_chain(head, at, length, kind):
            return at
        at = head.find(b"\xff", at + 1)
    return None


def _is_chain(head: bytes, begin: int, length: Callable[[bytes], int], kind: Callable[[bytes], int]) -> bool:
    first = kind(head[begin : begin + 8])
    at, frames = begin, 0
    while frames < _CHAIN_FRAMES:
        frame = head[at : at + 8]
        if len(frame) < 8 or (frames and frame[:3] == b"TAG"):
            return begin == 0 and frames > 0  # a short file, which is consistent up to its end
        if not length(frame) or kind(frame) != first:
            return False
        at, frames = at + length(frame), frames + 1
    return True
