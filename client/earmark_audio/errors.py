"""Errors of recordings. Each message is a sentence with cause and remedy; it does not name the file."""

from __future__ import annotations


class AudioFileError(Exception):
    """A recording that cannot be read, or not to its end. The message names no file: the caller knows it."""

    reason = "BAD_AUDIO"


class UnsupportedRateError(AudioFileError):
    """A sample rate outside of what Earmark resamples from."""

    reason = "UNSUPPORTED_SAMPLE_RATE"


class IncompleteError(AudioFileError):
    """A recording that is cut off or damaged.

    It is raised after everything before that point: a reader has already received every sample that could
    be decoded.
    """
