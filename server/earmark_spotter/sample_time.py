"""Time as a count of samples: the conversions between samples and nanoseconds, each defined once.

Positions in a stream are sample counts everywhere. Nanoseconds appear only in messages and settings.
"""

from __future__ import annotations

NANOSECONDS = 1_000_000_000


def offset_ns(samples: int, sample_rate_hz: int) -> int:
    """Convert a sample count to nanoseconds, rounded down."""
    return samples * NANOSECONDS // sample_rate_hz


class SilenceRounding:
    """Converts the silences of one call from nanoseconds to whole samples.

    Each silence is rounded to the nearest sample, and the fraction that is left is added to the next
    silence. So the total length of all silences is never more than half a sample from the exact sum,
    however many there are. A silence that is a whole number of samples, rounded to a nanosecond, leaves
    no fraction.
    """

    def __init__(self, sample_rate_hz: int) -> None:
        self._rate_hz = sample_rate_hz
        self._rest = 0  # in samples * NANOSECONDS

    def samples(self, duration_ns: int) -> int:
        """Return the number of samples for the next silence."""
        exact = duration_ns * self._rate_hz
        samples = _nearest(exact)
        if abs(exact - samples * NANOSECONDS) < self._rate_hz:  # less than a nanosecond
            return samples
        exact += self._rest
        samples = max(0, _nearest(exact))
        self._rest = exact - samples * NANOSECONDS
        return samples


def _nearest(numerator: int) -> int:
    """Divide by NANOSECONDS, rounded to the nearest integer, halves up."""
    return (2 * numerator + NANOSECONDS) // (2 * NANOSECONDS)
