"""Pace: whether a stream sends audio as fast as it is spoken, or faster."""

from __future__ import annotations

import time

# A stream that sends this much more audio than time has passed, within a window, is not live.
_MAX_LEAD_NS = 300_000_000
_WINDOW_S = 1.0


class Pace:
    """The pace of one stream. The engine's thread updates it; the event loop reads `is_live`."""

    def __init__(self) -> None:
        self.is_live = True
        """Whether the audio comes no faster than it is spoken."""
        self._window_start = (time.monotonic(), 0)  # the time, and the audio sent by then

    def update(self, now_s: float, sent_ns: int, *, has_ended: bool) -> None:
        """Compare the audio sent so far with the time; a lead from before the window does not count."""
        since_s, sent_before_ns = self._window_start
        lead_ns = sent_ns - sent_before_ns - (now_s - since_s) * 1e9
        self.is_live = not has_ended and lead_ns < _MAX_LEAD_NS
        if now_s - since_s > _WINDOW_S:
            self._window_start = (now_s, sent_ns)
