"""Recordings: the whole audio of a Spot or Classify call, as raw samples or as a file to decode."""

from __future__ import annotations

from typing import TYPE_CHECKING

from earmark_spotter import AudioError, SampleRateError, TooLongError

if TYPE_CHECKING:
    from earmark_spotter import AudioFormat, Container, DecodedRecording

    from earmark_server.rpc.decoder import FileDecoder


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
    decoder: FileDecoder,
    quota_key: str,
    audio: bytes,
    container: Container | None,
    *,
    sample_rate_hz: int = 0,
    channel_count: int = 0,
    channel: int = 0,
) -> DecodedRecording:
    """Decode a file of a client, also one that is truncated: as far as it goes, with a notice.

    `sample_rate_hz` and `channel_count` are the values in the request; 0: the request states none. `channel`:
    the one to process, 0 for the mean of all. Raises SampleRateError or AudioError if the file has other
    values.
    """
    decoded = await decoder.decode(quota_key, audio, container, channel or None)
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
