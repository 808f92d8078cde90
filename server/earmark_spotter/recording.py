"""Whole recordings: decodes files to float32 mono in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from earmark_audio import (
    AudioFileError,
    IncompleteError,
    Notice,
    RecordingFile,
    TooLongFileError,
    UnsupportedRateError,
)

from earmark_spotter.errors import AudioError, IncompleteRecordingError, SampleRateError, TooLongError

if TYPE_CHECKING:
    import os

    from earmark_spotter.container import Container
    from earmark_spotter.model import Float32Array

DENSEST_HZ = 96_000
"""Samples per second, over all channels, of stereo at 48 kHz. The length limit of a denser recording is
shorter in proportion: a file of half a megabyte can decode to 300 s of eight channels at 192 kHz, which is
two gigabytes."""

INCOMPLETE = "RECORDING_INCOMPLETE"
"""The notice's reason for a recording that is cut off or damaged."""


@dataclass(frozen=True, slots=True)
class DecodedRecording:
    """What a file decodes to."""

    samples: Float32Array
    """float32 mono [n]: one channel or the mean of all, full scale at -1 and 1."""
    sample_rate_hz: int
    channels: int
    """How many channels the file has."""
    notices: tuple[Notice, ...]
    """What is unusual about it. RECORDING_INCOMPLETE is the last one if the end is missing."""


def decode_recording(
    source: bytes | str | os.PathLike[str],
    *,
    max_seconds: float | None = None,
    container: Container | None = None,
    programs: bool = False,
    channel: int | None = None,
) -> DecodedRecording:
    """Decode a whole recording, also one that is cut off or damaged: as far as it goes.

    source: the file's bytes, or its path.
    max_seconds: the limit on the length. A longer recording raises TooLongError, both if the
        file declares a longer length and if more audio is decoded, so memory is bounded
        whatever the file declares. Above 96,000 samples per second, over all channels, the
        limit is shorter in proportion.
    container: the container that the caller declares; None to detect it.
    programs: whether the program `ffmpeg` may be started to decode what nothing else decodes.
    channel: the only channel to decode, 1 for the first; None: the mean of all.

    Raises AudioError for a file that is not a recording or has no samples that can be decoded, and
    SampleRateError for a sample rate that is not supported.
    """
    try:
        with RecordingFile(source, programs=programs, longest_s=max_seconds) as file:
            if container is not None and file.format.container != container.value:
                raise AudioError(
                    f"The request declares a {container.value} recording, but the file is {file.format}. "
                    "Declare the right encoding, or leave it unspecified."
                )
            return _decode(file, max_seconds, channel)
    except TooLongFileError as error:
        raise _too_long(error.seconds, max_seconds) from error
    except UnsupportedRateError as error:
        raise SampleRateError(str(error)) from error
    except AudioFileError as error:
        raise AudioError(str(error)) from error
    except OSError as error:
        raise AudioError(f"The recording {source!r} cannot be read: {error.strerror}.") from error


def read_recording(
    source: bytes | str | os.PathLike[str],
    *,
    max_seconds: float | None = None,
    container: Container | None = None,
    programs: bool = False,
) -> tuple[Float32Array, int]:
    """Decode a whole recording; return float32 mono samples [n] and the sample rate in Hz.

    Arguments and errors as for `decode_recording`, but a recording that is cut off or damaged raises
    IncompleteRecordingError, which carries what could be decoded.
    """
    decoded = decode_recording(source, max_seconds=max_seconds, container=container, programs=programs)
    if decoded.notices and decoded.notices[-1].reason == INCOMPLETE:
        raise IncompleteRecordingError(decoded.notices[-1].message, decoded.samples, decoded.sample_rate_hz)
    return decoded.samples, decoded.sample_rate_hz


def _decode(file: RecordingFile, max_seconds: float | None, channel: int | None) -> DecodedRecording:
    rate_hz = file.sample_rate_hz
    if max_seconds is not None:
        max_seconds *= min(1.0, DENSEST_HZ / (rate_hz * file.channels))
    limit = None if max_seconds is None else int(max_seconds * rate_hz)
    # The declared length may be wrong: it can get a recording rejected early, but not accepted.
    if limit is not None and file.declared_s is not None and file.declared_s * rate_hz > limit:
        raise _too_long(file.declared_s, max_seconds)
    blocks: list[Float32Array] = []
    decoded = 0
    incomplete: list[Notice] = []
    try:
        for block in file.mono(channel):
            decoded += len(block)
            if limit is not None and decoded > limit:
                raise _too_long(decoded / rate_hz, max_seconds)
            blocks.append(block)
    except IncompleteError as error:
        if not decoded:
            raise
        incomplete = [Notice(INCOMPLETE, str(error))]
    samples = np.empty(decoded, np.float32)
    while blocks:  # each block is freed once it is copied, so that the recording is not in memory twice
        block = blocks.pop()
        samples[decoded - len(block) : decoded] = block
        decoded -= len(block)
    return DecodedRecording(samples, rate_hz, file.channels, (*file.notices, *incomplete))


def _too_long(seconds: float, max_seconds: float | None) -> TooLongError:
    return TooLongError(
        f"The recording is at least {seconds:.1f} s long, but one call accepts at most {max_seconds:g} s at "
        "this sample rate and number of channels. Split the recording, or send it as a stream."
    )
