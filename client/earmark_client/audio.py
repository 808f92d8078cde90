"""Audio on its way to a server: encodings, chunks and silences, and settings of keywords."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

import numpy as np

from earmark_client.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Iterator

# Far below any server's limit for one message, so that a chunk may have any length.
_MESSAGE_BYTES = 256 * 1024


class Encoding(Enum):
    """Encoding of a stream's samples; channels are interleaved.

    LINEAR16 (signed 16-bit little-endian), FLOAT32 (IEEE 754 little-endian, full scale at -1 and 1),
    MULAW and ALAW (8-bit, ITU-T G.711).
    """

    LINEAR16 = "linear16"
    FLOAT32 = "float32"
    MULAW = "mulaw"
    ALAW = "alaw"


@dataclass(frozen=True, slots=True)
class Silence:
    """Silence of up to an hour, in `seconds`, that stands for a chunk and is not sent as samples."""

    seconds: float


@dataclass(frozen=True, slots=True)
class KeywordSetting:
    """A keyword to detect; a field that is None has the model's calibrated value.

    `threshold`: the score at which the keyword is detected, between 0 and 1.
    `refractory_s`: refractory period, 0 to 60 s: a detection suppresses further detections of the same
    keyword for this long.
    """

    keyword: str
    threshold: float | None = None
    refractory_s: float | None = None


Samples = np.ndarray[Any, np.dtype[Any]]
# float samples (full scale at -1 and 1) or int16, [n] (interleaved) or [n, channels]
Chunk = bytes | bytearray | memoryview | Samples | Silence


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """Sample rate, encoding and number of interleaved channels of raw audio."""

    sample_rate_hz: int
    encoding: Encoding = Encoding.LINEAR16
    channels: int = 1

    @property
    def frame_bytes(self) -> int:
        """Size of one frame: one sample of every channel."""
        return {Encoding.LINEAR16: 2, Encoding.FLOAT32: 4}.get(self.encoding, 1) * self.channels

    def byte_offset(self, seconds: float) -> int:
        """Return the length of some seconds of audio in bytes, rounded to whole frames."""
        return round(seconds * self.sample_rate_hz) * self.frame_bytes

    def seconds(self, length_bytes: int) -> float:
        """Return the length of some bytes of audio in seconds."""
        return length_bytes / self.frame_bytes / self.sample_rate_hz


def pcm_messages(chunk: bytes | bytearray | memoryview | Samples, encoding: Encoding) -> Iterator[bytes]:
    """Encode a chunk, split into messages of a size that every server accepts."""
    data = pcm_bytes(chunk, encoding)
    for start in range(0, len(data), _MESSAGE_BYTES):
        yield data[start : start + _MESSAGE_BYTES]


def pcm_bytes(chunk: bytes | bytearray | memoryview | Samples, encoding: Encoding) -> bytes:
    """Encode a chunk: return bytes unchanged, and convert arrays.

    Arrays hold float samples (full scale at -1 and 1) or int16 samples, and become LINEAR16 or FLOAT32.
    Raises InvalidRequestError for anything else, and for NaN or infinity, which LINEAR16 would hide.
    """
    if isinstance(chunk, bytes):
        return chunk
    if isinstance(chunk, bytearray | memoryview):
        return bytes(chunk)
    if not isinstance(chunk, np.ndarray):
        raise InvalidRequestError(
            f"audio must be bytes or a numpy array, not {type(chunk).__name__}", reason="BAD_AUDIO"
        )
    if encoding not in {Encoding.LINEAR16, Encoding.FLOAT32}:
        raise InvalidRequestError(
            f"arrays can be sent as linear16 or float32 only: give {encoding.value} audio as bytes",
            reason="UNSUPPORTED_ENCODING",
        )
    if chunk.dtype == np.int16:
        converted = chunk if encoding is Encoding.LINEAR16 else chunk.astype(np.float32) / 32768
    elif chunk.dtype.kind == "f":
        converted = _to_int16(chunk) if encoding is Encoding.LINEAR16 else chunk
    else:
        raise InvalidRequestError(
            f"arrays of samples must be float (full scale at -1 and 1) or int16, not {chunk.dtype}",
            reason="BAD_AUDIO",
        )
    return converted.astype("<i2" if encoding is Encoding.LINEAR16 else "<f4", copy=False).tobytes()


def _to_int16(samples: Samples) -> Samples:
    """Round float samples to 16 bits, clipped at full scale; lossless if they came from 16-bit samples."""
    if not np.isfinite(samples).all():
        raise InvalidRequestError("the audio contains samples that are NaN or infinite", reason="BAD_AUDIO")
    return np.clip(np.rint(samples * 32768.0), -32768, 32767).astype(np.int16)
