"""The parts of a recording: what one decoder reads from its beginning to its end.

Most files have one. Files that were joined (`cat a.mp3 b.mp3`, chained Ogg as in RFC 3533, section 4) have
several.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from earmark_audio.errors import AudioFileError

if TYPE_CHECKING:
    from earmark_audio.file_view import FileView
    from earmark_audio.notices import Notice

MAX_PARTS = 1000
"""Far more than anybody joins: a file of nothing but beginnings must not fill the memory."""
MAX_ELEMENTS = 1_000_000
"""How many boxes, tags or elements of a film are followed: five hours of packets of 20 ms. A file of nothing
but empty ones must not keep a server busy."""


@dataclass
class Part:
    """What one decoder reads."""

    view: FileView
    declared_frames: int | None = None
    """How many frames (samples of each channel) its header states, where that can be relied on."""


@dataclass
class Layout:
    """The parts of a file, and what its structure says about it."""

    parts: list[Part]
    notices: list[Notice] = field(default_factory=list)
    missing: str | None = None
    """A sentence about what is missing at the end, if anything is."""
    stated_share: float = 1.0
    """The length that the header states, over that of the parts."""


def check_parts(count: int) -> None:
    """Raise AudioFileError if a file has too many parts."""
    if count > MAX_PARTS:
        raise AudioFileError(f"The file consists of more than {MAX_PARTS} joined recordings: split it.")
