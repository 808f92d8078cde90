"""Limits the lines about satellites: a connection can cause one at the cost of a few bytes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_MAX_PER_S = 20


class SampledReports:
    """Prints at most 20 lines a second; the next line states how many were suppressed."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._second = 0
        self._printed = self._suppressed = 0

    def report(self, text: str) -> None:
        """Print a line, unless there have been too many."""
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._printed = second, 0
        if self._printed >= _MAX_PER_S:
            self._suppressed += 1
            return
        self._printed += 1
        if self._suppressed:
            text = f"{text} ({self._suppressed} lines before this one were suppressed)"
            self._suppressed = 0
        self._report(text)
