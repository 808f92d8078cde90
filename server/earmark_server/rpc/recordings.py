"""Recordings: the whole audio of a Spot or Classify call, as raw samples or as a file to decode."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from earmark_audio.ffmpeg import has_package
from earmark_audio.formats import HEAD_BYTES, Decoder, identify
from earmark_spotter import AudioError, SampleRateError, TooLongError, decode_recording

from earmark_server.rpc.decoding_process import decode_in_process

if TYPE_CHECKING:
    from earmark_spotter import AudioFormat, Container, DecodedRecording


def check_raw(audio: bytes, audio_format: AudioFormat, max_seconds: float) -> None:
    """Raise AudioError for an empty recording of raw samples, and TooLongError for one that is too long."""
    if not audio:
        raise AudioError("The recording is empty: it has no bytes.")
    seconds = len(audio) / (audio_format.frame_bytes * audio_format.sample_rate_hz)
    if seconds > max_seconds:
        raise TooLongError(
            f"The recording has {seconds:.1f} s, but a call may have at most {max_seconds:g} s. Cut the "
            "recording, or use a stream."
        )


async def decode(
    audio: bytes,
    container: Container | None,
    max_seconds: float,
    *,
    sample_rate_hz: int = 0,
    channel_count: int = 0,
    channel: int = 0,
) -> DecodedRecording:
    """Decode a file on a thread, also one that is truncated: as far as it goes, with a notice.

    `sample_rate_hz` and `channel_count` are the values in the request; 0: the request states none. `channel`:
    the one to process, 0 for the mean of all. Raises SampleRateError or AudioError if the file has other
    values. A call that is cancelled waits for the thread, which occupies memory and a core until then.
    """
    decode_file = decode_in_process if _needs_ffmpeg(audio) else _decode_here
    decoding = asyncio.ensure_future(
        asyncio.to_thread(decode_file, audio, container, max_seconds, channel or None)
    )
    try:
        decoded = await asyncio.shield(decoding)
    except asyncio.CancelledError:
        while not decoding.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait((decoding,))
        raise
    if sample_rate_hz not in (0, decoded.sample_rate_hz):
        raise SampleRateError(
            f"The recording has {decoded.sample_rate_hz} Hz, but the request states {sample_rate_hz}. "
            "Omit the rate."
        )
    if channel_count not in (0, decoded.channels):
        raise AudioError(
            f"The recording has {decoded.channels} channels, but the request states {channel_count}. "
            "Omit the channel count."
        )
    return decoded


def _needs_ffmpeg(audio: bytes) -> bool:
    kind = identify(audio[:HEAD_BYTES])
    return kind is not None and kind.decoder is Decoder.FFMPEG and has_package()


def _decode_here(
    audio: bytes, container: Container | None, max_seconds: float, channel: int | None
) -> DecodedRecording:
    return decode_recording(audio, max_seconds=max_seconds, container=container, channel=channel)
