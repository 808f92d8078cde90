"""What goes to a server: audio in chunks, pauses, and which keywords to listen for."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

import numpy as np

from earmark_client.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Iterator

# Far below any server's limit for one message, so that a chunk may be as long as the caller likes.
_MESSAGE_BYTES = 256 * 1024


class Encoding(Enum):
    """How a stream's samples are written as bytes; channels are interleaved.

    LINEAR16 (signed 16-bit little-endian), FLOAT32 (IEEE 754 little-endian, full scale at -1 and 1),
    MULAW and ALAW (8-bit, ITU-T G.711).
    """

    LINEAR16 = "linear16"
    FLOAT32 = "float32"
    MULAW = "mulaw"
    ALAW = "alaw"


@dataclass(frozen=True, slots=True)
class Silence:
    """A pause that was seen and not sent: up to an hour of silence, in `seconds`, in place of a chunk."""

    seconds: float


@dataclass(frozen=True, slots=True)
class KeywordSetting:
    """A keyword to listen for; what is None is as the model was calibrated.

    `threshold`: the score from which on it counts as heard, between 0 and 1.
    `refractory_s`: none of the same within so many seconds of audio after one, 0 to 60.
    """

    keyword: str
    threshold: float | None = None
    refractory_s: float | None = None


Samples = np.ndarray[Any, np.dtype[Any]]
# float samples (full scale at -1 and 1) or int16, [n] (interleaved) or [n, channels]
Chunk = bytes | bytearray | memoryview | Samples | Silence


def frame_bytes(encoding: Encoding, channels: int) -> int:
    """Bytes of one sample of every channel."""
    return {Encoding.LINEAR16: 2, Encoding.FLOAT32: 4}.get(encoding, 1) * channels


def pcm_messages(chunk: bytes | bytearray | memoryview | Samples, encoding: Encoding) -> Iterator[bytes]:
    """Write a chunk in an encoding, cut into messages of a size that every server takes."""
    data = pcm_bytes(chunk, encoding)
    for start in range(0, len(data), _MESSAGE_BYTES):
        yield data[start : start + _MESSAGE_BYTES]


def pcm_bytes(chunk: bytes | bytearray | memoryview | Samples, encoding: Encoding) -> bytes:
    """Write a chunk in an encoding: bytes as they are, arrays converted.

    Arrays hold float samples (full scale at -1 and 1) or int16, and go out as LINEAR16 or FLOAT32.
    InvalidRequestError for anything else, and for NaN or infinity, which LINEAR16 would hide.
    """
    if isinstance(chunk, bytes):
        return chunk
    if isinstance(chunk, bytearray | memoryview):
        return bytes(chunk)
    if not isinstance(chunk, np.ndarray):
        raise InvalidRequestError(
            f"audio must come as bytes or numpy arrays, not {type(chunk).__name__}", reason="BAD_AUDIO"
        )
    if encoding not in {Encoding.LINEAR16, Encoding.FLOAT32}:
        raise InvalidRequestError(
            f"arrays can be sent as linear16 or float32; {encoding.value} audio must come as bytes",
            reason="UNSUPPORTED_ENCODING",
        )
    if chunk.dtype == np.int16:
        as_written = chunk if encoding is Encoding.LINEAR16 else chunk.astype(np.float32) / 32768
    elif chunk.dtype.kind == "f":
        as_written = _to_int16(chunk) if encoding is Encoding.LINEAR16 else chunk
    else:
        raise InvalidRequestError(
            f"arrays of samples must be float (full scale at -1 and 1) or int16, not {chunk.dtype}",
            reason="BAD_AUDIO",
        )
    return as_written.astype("<i2" if encoding is Encoding.LINEAR16 else "<f4", copy=False).tobytes()


def _to_int16(samples: Samples) -> Samples:
    """Round float samples to 16 bits, clipped at full scale; exact for what was 16-bit before."""
    if not np.isfinite(samples).all():
        raise InvalidRequestError("the audio has samples that are NaN or infinite", reason="BAD_AUDIO")
    return np.clip(np.rint(samples * 32768.0), -32768, 32767).astype(np.int16)
