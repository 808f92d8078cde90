"""Whole recordings: WAV, FLAC and Ogg files to float32 mono, within a bound of memory."""

from __future__ import annotations

import io
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from earmark_spotter.audio import check_channel_count, check_sample_rate, check_samples, mix_down
from earmark_spotter.container import Container, check_container
from earmark_spotter.errors import AudioError, TooLongError

if TYPE_CHECKING:
    import os

    from earmark_spotter.model import Float32Array

_DENSEST_HZ = 96_000
"""Stereo at 48 kHz. What has more samples a second, all channels together, may be shorter only: a file of
half a megabyte can hold 300 s of eight channels at 192 kHz, which is two gigabytes."""

_UNKNOWN_LENGTH = (1 << 63) - 1
"""libsndfile's SF_COUNT_MAX: the file does not say how long it is."""


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
        With more than 96,000 samples a second, all channels together, so much less is taken.
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

    class ForwardFile(soundfile.SoundFile):  # type: ignore[misc]
        """Read from front to back: seeking after every block, as is its habit, can fail or be inexact."""

        def seekable(self) -> bool:
            return False

    check_container(file, container)
    try:
        with ForwardFile(file) as sound:
            return _decode(sound, max_seconds), sound.samplerate
    except soundfile.LibsndfileError as error:
        raise AudioError(f"The recording is damaged and cannot be decoded: {error.error_string}") from error


def _decode(sound: Any, max_seconds: float | None) -> Float32Array:
    rate: int = sound.samplerate
    check_sample_rate(rate)
    check_channel_count(sound.channels)
    if max_seconds is not None:
        max_seconds *= min(1.0, _DENSEST_HZ / (rate * sound.channels))
    limit = None if max_seconds is None else int(max_seconds * rate)
    declared: int | None = None if sound.frames == _UNKNOWN_LENGTH else sound.frames
    # A declared length may lie: it can refuse a recording, but not let it in.
    if limit is not None and declared is not None and declared > limit:
        raise _too_long(declared / rate, max_seconds)

    blocks: list[Float32Array] = []
    decoded = 0
    while (block := sound.read(rate, dtype="float32", always_2d=True)).shape[0]:  # [up to 1 s, channels]
        check_samples(block)
        decoded += block.shape[0]
        if limit is not None and decoded > limit:
            raise _too_long(decoded / rate, max_seconds)
        blocks.append(mix_down(block))
    if not decoded:
        raise AudioError("The recording is empty: it has no samples.")
    if declared is not None and decoded < declared:
        raise AudioError(f"The recording is cut off: it declares {declared} samples but has {decoded}.")
    samples = np.empty(decoded, np.float32)
    while blocks:  # each one goes when it is copied, so that the recording is not there twice
        block = blocks.pop()
        samples[decoded - len(block) : decoded] = block
        decoded -= len(block)
    return samples


def _too_long(seconds: float, max_seconds: float | None) -> TooLongError:
    return TooLongError(
        f"The recording is {seconds:.1f} s or longer, but at most {max_seconds:g} s of this rate and this "
        "number of channels are taken in one call: cut it, or use a stream."
    )
