"""Recordings: the format of a file, and its samples. The client, the server and the training use it."""

from earmark_audio.errors import AudioFileError, IncompleteError, UnsupportedRateError
from earmark_audio.formats import READ_FORMATS, Decoder, Format, identify
from earmark_audio.levels import Levels, mix_down
from earmark_audio.recording import (
    MAX_CHANNELS,
    MAX_PEAK,
    MAX_SAMPLE_RATE_HZ,
    MIN_SAMPLE_RATE_HZ,
    RecordingFile,
)

__all__ = [
    "MAX_CHANNELS",
    "MAX_PEAK",
    "MAX_SAMPLE_RATE_HZ",
    "MIN_SAMPLE_RATE_HZ",
    "READ_FORMATS",
    "AudioFileError",
    "Decoder",
    "Format",
    "IncompleteError",
    "Levels",
    "RecordingFile",
    "UnsupportedRateError",
    "identify",
    "mix_down",
]
