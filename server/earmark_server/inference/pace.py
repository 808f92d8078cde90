"""Pace: whether a stream sends audio as fast as it is spoken, or faster."""

from __future__ import annotations

import time

# A stream is live while the audio it sends is at most this far ahead of the time. The lead is measured
# against a clock that runs a little fast, so that a lead disappears once the stream slows down.
_MAX_LEAD_S = 0.3
_CLOCK_RATE = 1.2

# A live stream may send this much audio at once after a pause of the network.
_CATCH_UP_S = 1.0

# Of a lead whose audio is processed, this much is remembered. So a stream that was resumed, and had to
# replay some audio, is live again after about a second.
_REMEMBERED_LEAD_S = 0.6


class Pace:
    """The pace of one stream. The engine's thread updates it; the event loop reads `is_live`.

    It does not depend on how the audio arrives: a lead does not disappear before the audio is processed,
    so neither a long message nor a long silence looks like a pause.
    """

    def __init__(self) -> None:
        self.is_live = True
        """Whether the audio arrives no faster than it is spoken."""
        self._updated_s = time.monotonic()
        self._sent_s = 0.0
        self._lead_s = 0.0

    def update(self, now_s: float, sent_s: float, pending_s: float, *, has_ended: bool) -> None:
        """Compare the audio sent since the start, of which `pending_s` is not processed, with the time."""
        elapsed_s = now_s - self._updated_s
        lead_s = max(-_CATCH_UP_S, self._lead_s - elapsed_s * _CLOCK_RATE) + sent_s - self._sent_s
        self._lead_s = min(lead_s, max(0.0, pending_s) + _REMEMBERED_LEAD_S)
        self._updated_s, self._sent_s = now_s, sent_s
        self.is_live = not has_ended and self._lead_s < _MAX_LEAD_S
