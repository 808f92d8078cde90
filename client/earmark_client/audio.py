"""Audio on its way to a server: encodings, chunks and silences, and settings of keywords."""

from __future__ import annotations

import os
from array import array
from dataclasses import dataclass
from enum import Enum
from numbers import Real
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from earmark_audio import sample_problem

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
    keyword for this long. `model`: with several models, the one whose keyword it is; by default every model
    that has it.
    """

    keyword: str
    threshold: float | None = None
    refractory_s: float | None = None
    model: str = ""


Samples = np.ndarray[Any, np.dtype[Any]]
# float samples (full scale at -1 and 1) or int16, [n] (interleaved) or [n, channels]
Chunk = bytes | bytearray | memoryview | Samples | Silence

# Audio as bytes, or a silence as its length in bytes of audio, so that both count the same.
Piece = bytes | bytearray | int


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """Sample rate, encoding and number of interleaved channels of raw audio.

    `channel`: the only channel to process, 1 for the first; None: the mean of all.
    """

    sample_rate_hz: int
    encoding: Encoding = Encoding.LINEAR16
    channels: int = 1
    channel: int | None = None

    def __post_init__(self) -> None:
        """Accept an encoding by its name, and whole numbers of any type: sounddevice gives rates as floats.

        Raises InvalidRequestError for anything else.
        """
        object.__setattr__(self, "encoding", _encoding(self.encoding))
        for name, reason in (("sample_rate_hz", "UNSUPPORTED_SAMPLE_RATE"), ("channels", "BAD_AUDIO")):
            object.__setattr__(self, name, whole_number(name, getattr(self, name), reason))
        if self.channel is not None:
            object.__setattr__(self, "channel", whole_number("channel", self.channel, "BAD_AUDIO"))
            if not 1 <= self.channel <= self.channels:
                raise InvalidRequestError(
                    f"there is no channel {self.channel}: the audio has {self.channels}", reason="BAD_AUDIO"
                )

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


def piece_bytes(piece: Piece) -> int:
    """Return the length of a piece in bytes."""
    return piece if isinstance(piece, int) else len(piece)


Source = TypeVar("Source")


def as_chunks(audio: Source) -> Source | list[Chunk]:
    """Return the chunks of a stream's audio: a single chunk, given in place of an iterable, is a list of one.

    Raises InvalidRequestError for the path of a file.
    """
    if isinstance(audio, bytes | bytearray | memoryview | Silence):
        return [audio]
    if _is_array(audio):
        return [np.asarray(audio)]
    if isinstance(audio, str | os.PathLike):
        raise InvalidRequestError(
            f"a stream's audio is an iterable of chunks, not a path: give Recording({str(audio)!r})",
            reason="BAD_AUDIO",
        )
    if not hasattr(audio, "__iter__") and not hasattr(audio, "__aiter__"):
        raise InvalidRequestError(
            f"a stream's audio is a chunk or an iterable of chunks, not {type(audio).__name__}",
            reason="BAD_AUDIO",
        )
    return audio


def _is_array(audio: Any) -> bool:
    """Return whether numpy converts a value to an array: one of numpy, of Python, or of torch and others."""
    return isinstance(audio, array) or hasattr(audio, "__array__")


def pcm_messages(
    chunk: bytes | bytearray | memoryview | Samples, audio_format: AudioFormat
) -> Iterator[bytes]:
    """Encode a chunk, split into messages of a size that every server accepts."""
    data = pcm_bytes(chunk, audio_format.encoding, audio_format.channels)
    for start in range(0, len(data), _MESSAGE_BYTES):
        yield data[start : start + _MESSAGE_BYTES]


def pcm_bytes(
    chunk: bytes | bytearray | memoryview | Samples, encoding: Encoding, channels: int = 1
) -> bytes:
    """Encode a chunk: return bytes unchanged, and convert arrays.

    Arrays, of numpy or of what numpy converts, hold float samples (full scale at -1 and 1) or int16 samples,
    [n] (interleaved) or [n, channels], and become LINEAR16 or FLOAT32. Raises InvalidRequestError for
    anything else, and for floats that are NaN, infinite or far beyond full scale, which LINEAR16 would hide.
    """
    if isinstance(chunk, bytes):
        return chunk
    if isinstance(chunk, bytearray) or (isinstance(chunk, memoryview) and chunk.format in {"B", "b", "c"}):
        return bytes(chunk)
    if not isinstance(chunk, memoryview) and not _is_array(chunk):
        raise InvalidRequestError(
            f"audio must be bytes or a numpy array, not {type(chunk).__name__}", reason="BAD_AUDIO"
        )
    chunk = np.asarray(chunk)
    if encoding not in {Encoding.LINEAR16, Encoding.FLOAT32}:
        raise InvalidRequestError(
            f"arrays can be sent as linear16 or float32 only: give {encoding.value} audio as bytes",
            reason="UNSUPPORTED_ENCODING",
        )
    _check_shape(chunk, channels)
    if (chunk.dtype.kind, chunk.dtype.itemsize) == ("i", 2):
        converted = chunk if encoding is Encoding.LINEAR16 else chunk.astype(np.float32) / 32768
    elif chunk.dtype.kind == "f":
        _check_scale(chunk)
        converted = _to_int16(chunk) if encoding is Encoding.LINEAR16 else chunk
    else:
        raise InvalidRequestError(
            f"arrays of samples must be float (full scale at -1 and 1) or int16, not {chunk.dtype}",
            reason="BAD_AUDIO",
        )
    return converted.astype("<i2" if encoding is Encoding.LINEAR16 else "<f4", copy=False).tobytes()


def _check_shape(samples: Samples, channels: int) -> None:
    if samples.ndim == 1 or (samples.ndim == 2 and samples.shape[1] == channels):
        return
    is_transposed = samples.ndim == 2 and samples.shape[0] == channels
    remedy = "transpose it" if is_transposed else f"give an array [n, {channels}], or set `channels`"
    raise InvalidRequestError(
        f"an array of samples must be [n] or [n, channels], and channels is {channels}, but its shape is "
        f"{list(samples.shape)}: {remedy}",
        reason="BAD_AUDIO",
    )


def _check_scale(samples: Samples) -> None:
    if not np.isfinite(samples).all():
        raise InvalidRequestError("the audio contains samples that are NaN or infinite", reason="BAD_AUDIO")
    if problem := sample_problem(samples):
        raise InvalidRequestError(problem[0].lower() + problem[1:].rstrip("."), reason="BAD_AUDIO")


def is_number(value: object) -> bool:
    """Return whether a value is a real number, of Python, numpy or another library."""
    return isinstance(value, Real | np.integer | np.floating)


def _encoding(encoding: Encoding | str) -> Encoding:
    if isinstance(encoding, Encoding):
        return encoding
    try:
        return Encoding(str(encoding).lower())
    except ValueError:
        names = ", ".join(known.value for known in Encoding)
        raise InvalidRequestError(
            f"the encoding {encoding!r} is not known: use one of {names}", reason="UNSUPPORTED_ENCODING"
        ) from None


def whole_number(name: str, value: Any, reason: str) -> int:
    """Return an argument as an int. Raises InvalidRequestError, with the reason of the API, if it is none."""
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        number = None
    if number is None or number != value:
        raise InvalidRequestError(f"{name} must be a whole number, not {value!r}", reason=reason)
    return number


def _to_int16(samples: Samples) -> Samples:
    """Round float samples to 16 bits, clipped at full scale; lossless if they came from 16-bit samples."""
    return np.clip(np.rint(samples * 32768.0), -32768, 32767).astype(np.int16)
