"""A histogram that one thread writes and other threads read."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class Histogram:
    """The number of values in each bucket, and the sum of all values."""

    def __init__(self, bounds: Sequence[float]) -> None:
        """Create an empty histogram; `bounds`: the inclusive upper bounds of the buckets, ascending."""
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)  # the last one: values beyond all bounds
        self.total = 0.0

    def add(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value
