"""Whole recordings: decodes WAV, FLAC and Ogg files to float32 mono in bounded memory."""

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
"""Samples per second, over all channels, of stereo at 48 kHz. The length limit of a denser recording is
shorter in proportion: a file of half a megabyte can decode to 300 s of eight channels at 192 kHz, which is
two gigabytes."""

_UNKNOWN_LENGTH = (1 << 63) - 1
"""libsndfile's SF_COUNT_MAX: the file does not declare its length."""


def read_recording(
    source: bytes | str | os.PathLike[str],
    *,
    max_seconds: float | None = None,
    container: Container | None = None,
) -> tuple[Float32Array, int]:
    """Decode a whole recording; return float32 mono samples [n] and the sample rate in Hz.

    source: the file's bytes, or its path.
    max_seconds: the limit on the length. A longer recording raises TooLongError, both if the
        file declares a longer length and if more audio is decoded, so memory is bounded
        whatever the file declares. Above 96,000 samples per second, over all channels, the
        limit is shorter in proportion.
    container: the container that the caller declares; None to detect it.

    Channels are mixed down by their mean. Raises AudioError for a recording that is empty,
    damaged, truncated, or not a WAV, FLAC or Ogg file, and SampleRateError for a sample rate
    that is not supported.
    """
    if isinstance(source, bytes):
        return _read(io.BytesIO(source), max_seconds, container)
    try:
        with Path(source).open("rb") as file:
            return _read(file, max_seconds, container)
    except OSError as error:
        raise AudioError(f"The recording {source} cannot be read: {error.strerror}.") from error


def _read(
    file: IO[bytes], max_seconds: float | None, container: Container | None
) -> tuple[Float32Array, int]:
    import soundfile

    class ForwardFile(soundfile.SoundFile):  # type: ignore[misc]
        """Read from front to back: soundfile otherwise seeks after each block, which can be inexact."""

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
    # The declared length may be wrong: it can get a recording rejected early, but not accepted.
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
        raise AudioError("The recording is empty: it contains no samples.")
    if declared is not None and decoded < declared:
        raise AudioError(
            f"The recording is truncated: it declares {declared} samples, but only {decoded} could be "
            "decoded. Send the whole file."
        )
    samples = np.empty(decoded, np.float32)
    while blocks:  # each block is freed once it is copied, so that the recording is not in memory twice
        block = blocks.pop()
        samples[decoded - len(block) : decoded] = block
        decoded -= len(block)
    return samples


def _too_long(seconds: float, max_seconds: float | None) -> TooLongError:
    return TooLongError(
        f"The recording is at least {seconds:.1f} s long, but one call accepts at most {max_seconds:g} s at "
        "this sample rate and number of channels. Split the recording, or send it as a stream."
    )
