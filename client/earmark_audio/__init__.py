"""Recordings: the format of a file, and its samples. The client, the server and the training use it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from earmark_audio.lazy_names import lazy_names

if TYPE_CHECKING:
    from earmark_audio.errors import AudioFileError, IncompleteError, TooLongFileError, UnsupportedRateError
    from earmark_audio.folder import LeftOut, find_recordings
    from earmark_audio.formats import (
        FFMPEG_SUFFIXES,
        FORMATS_HELP,
        HEAD_BYTES,
        READ_FORMATS,
        READABLE,
        SUFFIXES,
        Decoder,
        Format,
        Readable,
        identify,
        identify_binary,
        identify_file,
    )
    from earmark_audio.levels import Levels, channels_cancel, mix_down
    from earmark_audio.limits import (
        MAX_CHANNELS,
        MAX_PEAK,
        MAX_SAMPLE_RATE_HZ,
        MIN_SAMPLE_RATE_HZ,
        channel_problem,
        rate_problem,
        sample_problem,
    )
    from earmark_audio.notices import Notice
    from earmark_audio.pipe import Pipe
    from earmark_audio.recording import RecordingFile

__all__ = [
    "FFMPEG_SUFFIXES",
    "FORMATS_HELP",
    "HEAD_BYTES",
    "MAX_CHANNELS",
    "MAX_PEAK",
    "MAX_SAMPLE_RATE_HZ",
    "MIN_SAMPLE_RATE_HZ",
    "READABLE",
    "READ_FORMATS",
    "SUFFIXES",
    "AudioFileError",
    "Decoder",
    "Format",
    "IncompleteError",
    "LeftOut",
    "Levels",
    "Notice",
    "Pipe",
    "Readable",
    "RecordingFile",
    "TooLongFileError",
    "UnsupportedRateError",
    "channel_problem",
    "channels_cancel",
    "find_recordings",
    "identify",
    "identify_binary",
    "identify_file",
    "mix_down",
    "rate_problem",
    "sample_problem",
]
_MODULES = ("errors", "folder", "formats", "levels", "limits", "notices", "pipe", "recording")


# What needs only the terminal's texts does not import NumPy.
__getattr__ = lazy_names(__name__, __all__, _MODULES)
