"""A limit on lines that a client can cause at the cost of a few bytes each."""

from __future__ import annotations

import time
from collections import Counter

_MAX_PER_S = 20


class LineSampler:
    """Limits the lines that repeat: a client whose calls are all rejected must not fill the log.

    Of the lines with one key, at most `_MAX_PER_S` are written in a second. The next line with the key that
    is written states how many were suppressed.
    """

    def __init__(self) -> None:
        self._second = 0
        self._written: Counter[str] = Counter()  # in this second, by key
        self._suppressed: Counter[str] = Counter()

    def admit(self, key: str) -> dict[str, int] | None:
        """Return the values to add to a line with the key; None if it is not to be written."""
        second = int(time.monotonic())
        if second != self._second:
            self._second = second
            self._written.clear()
        if self._written[key] >= _MAX_PER_S:
            self._suppressed[key] += 1
            return None
        self._written[key] += 1
        suppressed = self._suppressed.pop(key, 0)
        return {"suppressed": suppressed} if suppressed else {}
