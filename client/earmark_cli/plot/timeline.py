"""The timeline of a recording: what the page and the image of it both draw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from earmark_cli.output.console import format_duration

if TYPE_CHECKING:
    from earmark_cli.score_track import ScoreTrack

Samples = np.ndarray[Any, np.dtype[np.int16]]

# A keyword whose scores all lie below this is not drawn.
_MIN_DRAWN_SCORE = 0.1


@dataclass(frozen=True, slots=True)
class Timeline:
    """A part of a recording, int16 [n], and its scores; `start_s`: its start in the file."""

    name: str
    start_s: float
    sample_rate_hz: int
    samples: Samples
    track: ScoreTrack

    @property
    def duration_s(self) -> float:
        """Length of the part."""
        return len(self.samples) / self.sample_rate_hz

    @property
    def drawn(self) -> list[int]:
        """Indices of the drawn keywords in the settings."""
        highest = self.track.scores.max(axis=0, initial=0.0)
        detected = {one.keyword for one in self.track.detections}
        return [
            i
            for i, active in enumerate(self.track.started.keywords)
            if highest[i] >= min(_MIN_DRAWN_SCORE, active.threshold) or active.keyword in detected
        ]

    @property
    def undrawn(self) -> list[str]:
        """Names of the keywords that are not drawn."""
        names = [active.keyword for active in self.track.started.keywords]
        return [name for i, name in enumerate(names) if i not in self.drawn]

    @property
    def summary(self) -> str:
        """Length, number of detections and model, in one line."""
        count, started = len(self.track.detections), self.track.started
        return (
            f"{format_duration(self.duration_s)} of audio, {count} detection{'' if count == 1 else 's'} "
            f"by {started.model} {started.model_version}"
        )

    def envelope(self, columns: int) -> np.ndarray[Any, np.dtype[np.int8]]:
        """Return the lowest and the highest sample of each column, [columns, 2]; the loudest is 127."""
        edges = np.linspace(0, len(self.samples), columns + 1).astype(int)[:-1]
        lowest, highest = (np.minimum.reduceat, np.maximum.reduceat)
        samples = self.samples.astype(np.float32)
        both = np.stack([lowest(samples, edges), highest(samples, edges)], axis=1)
        full: np.ndarray[Any, np.dtype[np.float32]] = np.rint(127 * both / max(1.0, np.abs(both).max()))
        return full.astype(np.int8)
