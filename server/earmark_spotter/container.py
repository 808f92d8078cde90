"""The containers that a caller can declare for a recording."""

from __future__ import annotations

import enum


class Container(enum.Enum):
    """A container, by the name that `earmark_audio` gives it."""

    WAV = "WAV"
    """RIFF WAVE, with any coding that libsndfile supports."""
    FLAC = "FLAC"
    """Native FLAC (RFC 9639)."""
    OGG = "Ogg"
    """Ogg (RFC 3533) with Opus or Vorbis."""
