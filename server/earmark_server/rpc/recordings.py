"""Whole recordings, as the unary calls get them: raw samples, or a file to be decoded."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from earmark_spotter import AudioError, SampleRateError, TooLongError, read_recording

if TYPE_CHECKING:
    from earmark_spotter import AudioFormat, Container
    from earmark_spotter.model import Float32Array


def check_raw(audio: bytes, audio_format: AudioFormat, max_seconds: float) -> None:
    """Raise AudioError for no samples at all, and TooLongError for too many."""
    if not audio:
        raise AudioError("The recording is empty: it has no bytes.")
    seconds = len(audio) / (audio_format.frame_bytes * audio_format.sample_rate_hz)
    if seconds > max_seconds:
        raise TooLongError(
            f"The recording has {seconds:.1f} s, but at most {max_seconds:g} s are taken in one call: "
            "cut it, or use a stream."
        )


def decode(
    audio: bytes,
    container: Container | None,
    max_seconds: float,
    *,
    sample_rate_hz: int = 0,
    channel_count: int = 0,
) -> tuple[Float32Array, int]:
    """Decode a file to mono [n] and its rate in Hz; it takes its time, so not on the event loop.

    `sample_rate_hz` and `channel_count` are what the file is said to have; 0: nothing is said.
    """
    samples, rate_hz = read_recording(audio, max_seconds=max_seconds, container=container)
    if sample_rate_hz not in (0, rate_hz):
        raise SampleRateError(
            f"The recording has {rate_hz} Hz, but is said to have {sample_rate_hz}: leave it at 0."
        )
    if channel_count:
        import soundfile

        with soundfile.SoundFile(io.BytesIO(audio)) as file:
            if file.channels != channel_count:
                raise AudioError(
                    f"The recording has {file.channels} channels, but is said to have {channel_count}: "
                    "leave it at 0."
                )
    return samples, rate_hz
