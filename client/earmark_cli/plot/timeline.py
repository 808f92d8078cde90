"""What is drawn of a recording, however it is drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from earmark_cli.output.printer import clock

if TYPE_CHECKING:
    from earmark_cli.plot.scores import Heard

Samples = np.ndarray[Any, np.dtype[np.int16]]

# A keyword that never came near being heard gets no curve.
_LOWEST_SHOWN = 0.1


@dataclass(frozen=True, slots=True)
class Timeline:
    """A recording, int16 [n], and what was heard in it; `start_s`: where in its file it begins."""

    name: str
    start_s: float
    sample_rate_hz: int
    samples: Samples
    heard: Heard

    @property
    def duration_s(self) -> float:
        """Its length."""
        return len(self.samples) / self.sample_rate_hz

    @property
    def shown(self) -> list[int]:
        """Which keywords get a curve, by their place in the settings."""
        highest = self.heard.scores.max(axis=0, initial=0.0)
        said = {one.keyword for one in self.heard.detections}
        return [
            i
            for i, active in enumerate(self.heard.started.keywords)
            if highest[i] >= min(_LOWEST_SHOWN, active.threshold) or active.keyword in said
        ]

    @property
    def hidden(self) -> list[str]:
        """The other keywords."""
        names = [active.keyword for active in self.heard.started.keywords]
        return [name for i, name in enumerate(names) if i not in self.shown]

    @property
    def summary(self) -> str:
        """What it is, in a line."""
        count, started = len(self.heard.detections), self.heard.started
        return (
            f"{clock(self.duration_s)} of audio, {count} detection{'' if count == 1 else 's'} "
            f"by {started.model} {started.model_version}"
        )

    def envelope(self, columns: int) -> np.ndarray[Any, np.dtype[np.int8]]:
        """Give the lowest and the highest sample of so many stretches, [columns, 2]; the loudest is 127."""
        edges = np.linspace(0, len(self.samples), columns + 1).astype(int)[:-1]
        lowest, highest = (np.minimum.reduceat, np.maximum.reduceat)
        samples = self.samples.astype(np.float32)
        both = np.stack([lowest(samples, edges), highest(samples, edges)], axis=1)
        full: np.ndarray[Any, np.dtype[np.float32]] = np.rint(127 * both / max(1.0, np.abs(both).max()))
        return full.astype(np.int8)
