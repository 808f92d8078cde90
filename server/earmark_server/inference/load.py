"""The load of the engine, which decides whether the server admits another stream.

There are two measures, both over about the last second. The *lag* is the shortest queueing delay of a live
stream in any round of the window: a queue that never empties means overload, while one long wait does not
(as in CoDel, RFC 8289). It shows that there are already too many streams. The *share* is the fraction of
time that the engine spends on live streams, and it rises before the lag does. Recordings that are sent
faster than real time use only the time that is left, so they do not count.
"""

from __future__ import annotations

import time

_WINDOW_S = 0.5
_MIN_ROUNDS = 10
"""With fewer rounds in a window, the engine was almost idle, and its queueing delays mean nothing."""


class Load:
    """The engine's load. Its thread writes; the event loop may read slightly older values."""

    def __init__(self) -> None:
        self._window_start_s = time.monotonic()
        self._live_s = 0.0  # in the current window
        self._rounds = 0
        self._min_wait_s = float("inf")
        self._share = 0.0  # of the last full window
        self._lag_s = 0.0

    def add_round(self, began_s: float, ended_s: float, waited_s: float, live_share: float) -> None:
        """Add a round: its times, the delay of its first live stream, and the share of live streams."""
        if ended_s - self._window_start_s >= _WINDOW_S:
            self._share, self._lag_s = self._measure(ended_s)
            self._window_start_s, self._live_s, self._rounds = ended_s, 0.0, 0
            self._min_wait_s = float("inf")
        self._live_s += (ended_s - began_s) * live_share
        self._rounds += 1
        self._min_wait_s = min(self._min_wait_s, waited_s)

    @property
    def share(self) -> float:
        """The fraction of time that the engine spends on live streams, 0 to 1."""
        return self._measure(time.monotonic())[0]

    @property
    def lag_s(self) -> float:
        """The queueing delay that no round was below; 0 if the engine is almost idle."""
        return self._measure(time.monotonic())[1]

    def _measure(self, now_s: float) -> tuple[float, float]:
        """Return share and lag of the current window if it is long enough, else of the one before."""
        passed_s = now_s - self._window_start_s
        if passed_s < _WINDOW_S:
            return self._share, self._lag_s
        return self._live_s / passed_s, self._min_wait_s if self._rounds >= _MIN_ROUNDS else 0.0
