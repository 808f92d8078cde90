"""Whole recordings: WAV, FLAC and Ogg files to float32 mono, within a bound of memory."""

from __future__ import annotations

import enum
import io
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from earmark_spotter.audio import check_channel_count, check_sample_rate, check_samples, mix_down
from earmark_spotter.errors import AudioError, TooLongError

if TYPE_CHECKING:
    import os

    from earmark_spotter.model import Float32Array


class Container(enum.Enum):
    """A file format with audio in it."""

    WAV = "WAV"
    """RIFF WAVE, whatever coding libsndfile knows inside."""
    FLAC = "FLAC"
    OGG = "Ogg"
    """Ogg with Opus or Vorbis."""


# libsndfile guesses among thirty formats, some of which take anything; only these are let through.
_MAGIC = {b"RIFF": Container.WAV, b"RF64": Container.WAV, b"fLaC": Container.FLAC, b"OggS": Container.OGG}


def read_recording(
    source: bytes | str | os.PathLike[str],
    *,
    max_seconds: float | None = None,
    container: Container | None = None,
) -> tuple[Float32Array, int]:
    """Decode a whole recording to float32 mono [n] and its own sample rate in Hz.

    source: the file's bytes, or its path.
    max_seconds: refuse a longer one (TooLongError), by the length that the file declares
        and by what comes out of it; memory stays within that bound whatever the file says.
    container: what the file is said to be; None: what its first bytes tell.

    Channels are mixed down by their mean. Raises AudioError for what is empty, damaged,
    cut off, or not a WAV, FLAC or Ogg file, and SampleRateError for an odd sample rate.
    """
    if isinstance(source, bytes):
        return _read(io.BytesIO(source), max_seconds, container)
    try:
        with Path(source).open("rb") as file:
            return _read(file, max_seconds, container)
    except OSError as error:
        raise AudioError(f"{source} cannot be read: {error.strerror}.") from error


def _read(
    file: IO[bytes], max_seconds: float | None, container: Container | None
) -> tuple[Float32Array, int]:
    import soundfile

    _check_container(file, container)
    try:
        with soundfile.SoundFile(file) as sound:
            return _decode(sound, max_seconds), sound.samplerate
    except soundfile.LibsndfileError as error:
        raise AudioError(f"The recording is damaged and cannot be decoded: {error.error_string}") from error


def _check_container(file: IO[bytes], stated: Container | None) -> None:
    head = file.read(12)
    file.seek(0)
    if not head:
        raise AudioError("The recording is empty: it has no bytes.")
    found = _MAGIC.get(head[:4])
    if found is None or (found is Container.WAV and head[8:] != b"WAVE"):
        raise AudioError(
            f"The recording does not begin like a WAV, FLAC or Ogg file but with {head!r}: "
            "send one of these, or state the encoding of raw samples."
        )
    if stated is not None and stated is not found:
        raise AudioError(f"The recording is said to be {stated.value}, but its bytes are {found.value}.")


def _decode(sound: Any, max_seconds: float | None) -> Float32Array:
    rate: int = sound.samplerate
    check_sample_rate(rate)
    check_channel_count(sound.channels)
    limit = None if max_seconds is None else int(max_seconds * rate)
    # The declared length may lie, or be unknown (a huge number): it can refuse, not promise.
    if limit is not None and _is_known(sound.frames) and sound.frames > limit:
        raise _too_long(sound.frames / rate, max_seconds)

    blocks: list[Float32Array] = []
    decoded = 0
    while True:
        block: Float32Array = sound.read(rate, dtype="float32", always_2d=True)  # [up to 1 s, channels]
        if not block.shape[0]:
            break
        check_samples(block)
        decoded += block.shape[0]
        if limit is not None and decoded > limit:
            raise _too_long(decoded / rate, max_seconds)
        blocks.append(mix_down(block))
    if not decoded:
        raise AudioError("The recording is empty: it has no samples.")
    if _is_known(sound.frames) and decoded < sound.frames:
        raise AudioError(f"The recording is cut off: it declares {sound.frames} samples but has {decoded}.")
    return np.concatenate(blocks)


def _is_known(frame_count: int) -> bool:
    """Tell a declared length from libsndfile's placeholder for an unknown one (SF_COUNT_MAX)."""
    return frame_count < 1 << 62


def _too_long(seconds: float, max_seconds: float | None) -> TooLongError:
    return TooLongError(
        f"The recording is {seconds:.1f} s or longer, but at most {max_seconds:g} s are taken in one call: "
        "cut it, or use a stream."
    )
