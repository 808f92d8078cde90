"""Events: the results that a session returns to its call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from earmark_audio import Notice
from earmark_spotter import Detection

if TYPE_CHECKING:
    from earmark_spotter import StreamProgress
    from earmark_spotter.model import Float32Array


@dataclass(frozen=True, slots=True)
class Scores:
    """The score of every class of a model, [classes], at `offset_ns` from the start of the stream's audio."""

    offset_ns: int
    values: Float32Array
    model: str


@dataclass(frozen=True, slots=True)
class Progress:
    """The position of the stream; `draining` when the server is about to go away."""

    progress: StreamProgress
    draining: bool = False


@dataclass(frozen=True, slots=True)
class Finished:
    """The end of the audio, which is `audio_ns` long; all of its detections precede this event."""

    audio_ns: int


@dataclass(frozen=True, slots=True)
class ClipScores:
    """The score of every class for a whole clip, [classes], and the length of the clip."""

    values: Float32Array
    audio_ns: int


@dataclass(frozen=True, slots=True)
class Failed:
    """An error that ends the call."""

    error: Exception


Event: TypeAlias = Detection | Notice | Scores | Progress | Finished | ClipScores | Failed
"""A Notice reports a problem of the audio."""
