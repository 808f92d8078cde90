"""Errors of recordings. Each message is a sentence with cause and remedy; it does not name the file."""

from __future__ import annotations

DAMAGED = "The recording is damaged: it cannot be decoded from here on."
"""The message for what cannot be decoded in the middle of a recording."""

LAST_PACKET_INCOMPLETE = "The recording is truncated: its last packet is incomplete."


class AudioFileError(Exception):
    """A recording that cannot be read, or not to its end. The message names no file: the caller knows it."""

    reason = "BAD_AUDIO"


class UnknownFormatError(AudioFileError):
    """A file that does not begin like a recording: raw samples, for example."""


class UnsupportedRateError(AudioFileError):
    """A sample rate outside of what Earmark resamples from."""

    reason = "UNSUPPORTED_SAMPLE_RATE"


class TooLongFileError(AudioFileError):
    """A recording that is longer than the caller wants to read; it has at least `seconds`."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"The recording is at least {seconds:.1f} s long, which is more than is read.")
        self.seconds = seconds


class IncompleteError(AudioFileError):
    """A recording that is cut off or damaged.

    It is raised after everything before that point: a reader has already received every sample that could
    be decoded.
    """


def missing_bytes(count: int) -> str:
    """Return the message for a recording whose last bytes are missing."""
    return f"The recording is truncated: its last {count} bytes are missing."


def other_form(rate_hz: int, channels: int, first_rate_hz: int, first_channels: int) -> IncompleteError:
    """Return the error for a second recording in the same file, with another rate or number of channels."""
    return IncompleteError(
        f"Another recording follows in the same file, with {rate_hz} Hz and {channels} channel(s) in place "
        f"of {first_rate_hz} Hz and {first_channels}: it was not read. Split the file."
    )
