"""What a recording, or the audio of a microphone, consists of."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from earmark_audio import AudioFileError, Decoder, IncompleteError, Levels, Notice, RecordingFile
from earmark_audio.extras import installed_version
from earmark_client.errors import RecordingError
from earmark_client.microphone import Microphone

from earmark_cli.audio_sources import STANDARD_INPUT, standard_input

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class AudioReport:
    """A report on audio; levels are relative to full scale, and None for digital silence."""

    source: str
    container: str
    codec: str
    decoder: str
    sample_rate_hz: int
    channels: int
    stated_s: float | None
    """The length that the header states; None if it states none."""
    found_s: float
    level_dbfs: float | None
    peak_dbfs: float | None
    clipped_share: float
    dc: float
    channels_cancel: bool
    notices: tuple[Notice, ...]
    problem: RecordingError | None
    """Why the audio ends early."""


def check_recording(name: str) -> AudioReport:
    """Read a whole recording, `-` for standard input. Raises RecordingError if nothing can be read."""
    problem: RecordingError | None = None
    if not name:
        raise RecordingError("the name of a recording is empty")
    try:
        with RecordingFile(standard_input() if name == "-" else name) as file:
            try:
                for _ in file.blocks():
                    pass
            except IncompleteError as error:
                problem = _named(name, error)
            return _report(
                name,
                file.levels,
                container=file.format.container,
                codec=file.codec,
                decoder=_decoder(file),
                stated_s=file.stated_s,
                notices=tuple(file.notices),
                problem=problem,
            )
    except AudioFileError as error:
        raise _named(name, error) from error
    except (OSError, ValueError) as error:
        raise RecordingError(f"{name}: {getattr(error, 'strerror', None) or error}") from error


def check_microphone(device: int | str | None, duration_s: float) -> AudioReport:
    """Record from a microphone. Raises MicrophoneError if that fails."""
    with Microphone(device, duration_s=duration_s) as microphone:
        levels = Levels(microphone.sample_rate_hz, 1)
        for block in _samples(microphone):
            levels.add(block[:, np.newaxis], block)
        return _report(
            microphone.name,
            levels,
            container="microphone",
            codec="Signed 16 bit PCM",
            decoder="PortAudio",
            stated_s=duration_s,
            notices=tuple(levels.notices()),
            problem=None,
        )


def _samples(microphone: Microphone) -> Iterator[NDArray[np.float32]]:
    for block in microphone:
        if isinstance(block, bytes):
            yield np.frombuffer(block, "<i2").astype(np.float32) / np.float32(32768)


def _report(
    source: str,
    levels: Levels,
    *,
    container: str,
    codec: str,
    decoder: str,
    stated_s: float | None,
    notices: tuple[Notice, ...],
    problem: RecordingError | None,
) -> AudioReport:
    return AudioReport(
        source=source,
        container=container,
        codec=codec,
        decoder=decoder,
        sample_rate_hz=levels.sample_rate_hz,
        channels=levels.channels,
        stated_s=stated_s,
        found_s=levels.frames / levels.sample_rate_hz,
        level_dbfs=_finite(levels.level_dbfs),
        peak_dbfs=_finite(levels.peak_dbfs),
        clipped_share=levels.clipped_share,
        dc=levels.dc,
        channels_cancel=levels.channels_cancel,
        notices=notices,
        problem=problem,
    )


def _decoder(file: RecordingFile) -> str:
    if file.format.decoder is not Decoder.FFMPEG:
        import soundfile

        return f"libsndfile {soundfile.__libsndfile_version__}"
    version = installed_version("av")
    return "ffmpeg" if version is None else f"PyAV {version}"


def _finite(decibels: float) -> float | None:
    return decibels if math.isfinite(decibels) else None


def _named(name: str, error: AudioFileError) -> RecordingError:
    message = str(error)
    shown = STANDARD_INPUT if name == "-" else name
    return RecordingError(f"{shown}: {message[0].lower()}{message[1:].rstrip('.')}", reason=error.reason)
