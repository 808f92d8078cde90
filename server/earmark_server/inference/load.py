"""How loaded the engine is: what decides whether one more stream can be let in.

Two measures, both over the last second or so. The lag is how long streams stood in the queue: the shortest
time that any round of the engine found, for a queue that never empties is overload, and one that was long
once is not (as in CoDel, RFC 8289). It tells that there are too many streams already. The share of time that
the engine takes for live streams tells it before: recordings sent at full speed take whatever is left, and
count for nothing here.
"""

from __future__ import annotations

import time

_WINDOW_S = 0.5
_MIN_ROUNDS = 10
"""Fewer in a window say nothing about a queue: there is hardly anything to do."""


class Load:
    """The engine's load; its thread writes, the event loop reads values that may be a moment old."""

    def __init__(self) -> None:
        self._began_s = time.monotonic()
        self._live_s = 0.0  # in the window that has begun
        self._rounds = 0
        self._shortest_wait_s = float("inf")
        self._share = 0.0  # of the last full window
        self._lag_s = 0.0

    def add_round(self, began_s: float, ended_s: float, waited_s: float, live_share: float) -> None:
        """Count a round: from when to when, how long its first stream had waited, how much of it was live."""
        self._roll(ended_s)
        self._live_s += (ended_s - began_s) * live_share
        self._rounds += 1
        self._shortest_wait_s = min(self._shortest_wait_s, waited_s)

    @property
    def share(self) -> float:
        """Time that live streams took, of all time: 0 to 1."""
        return self._measured(time.monotonic())[0]

    @property
    def lag_s(self) -> float:
        """How long streams had to wait at least, to be listened to."""
        return self._measured(time.monotonic())[1]

    def _roll(self, now_s: float) -> None:
        if now_s - self._began_s >= _WINDOW_S:
            self._share, self._lag_s = self._measured(now_s)
            self._began_s, self._live_s, self._rounds, self._shortest_wait_s = now_s, 0.0, 0, float("inf")

    def _measured(self, now_s: float) -> tuple[float, float]:
        """Give share and lag of the window that has begun, once it is long enough; else of the one before."""
        passed_s = now_s - self._began_s
        if passed_s < _WINDOW_S:
            return self._share, self._lag_s
        return self._live_s / passed_s, self._shortest_wait_s if self._rounds >= _MIN_ROUNDS else 0.0
