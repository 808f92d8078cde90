"""Time as a count of samples: the conversions between samples and nanoseconds, each defined once.

Positions in a stream are sample counts everywhere. Nanoseconds appear only in messages and settings.
"""

from __future__ import annotations

NANOSECONDS = 1_000_000_000


def offset_ns(samples: int, sample_rate_hz: int) -> int:
    """Convert a sample count to nanoseconds, rounded down."""
    return samples * NANOSECONDS // sample_rate_hz


def nearest_sample(duration_ns: int, sample_rate_hz: int) -> int:
    """Convert nanoseconds to samples, rounded to the nearest; halves to the even one, as `round` does."""
    samples, rest = divmod(duration_ns * sample_rate_hz, NANOSECONDS)
    return samples + (2 * rest + samples % 2 > NANOSECONDS)
