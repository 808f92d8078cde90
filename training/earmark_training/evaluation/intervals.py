"""95% confidence intervals of proportions and of rates."""

from __future__ import annotations

import math

_Z = 1.96


def wilson_interval(successes: int, count: int) -> tuple[float, float]:
    """Return the 95% interval of a proportion (Wilson 1927)."""
    p = successes / count
    middle = p + _Z * _Z / (2 * count)
    half = _Z * math.sqrt(p * (1 - p) / count + _Z * _Z / (4 * count * count))
    # By rounding, the limits of 0 and of 1 would lie a little outside, and 0 would be written as -0.0%.
    low, high = max(0.0, middle - half), middle + half
    return low / (1 + _Z * _Z / count), min(1.0, high / (1 + _Z * _Z / count))


def poisson_interval(events: int, hours: float) -> tuple[float, float]:
    """Return the 95% interval of a rate per hour from a count (Byar's approximation to the exact limits)."""
    low = events * (1 - 1 / (9 * events) - _Z / (3 * math.sqrt(events))) ** 3 if events else 0.0
    above = events + 1
    high = above * (1 - 1 / (9 * above) + _Z / (3 * math.sqrt(above))) ** 3
    return low / hours, high / hours


def rate_text(events: int, hours: float) -> str:
    """Return a rate as people can judge it: its count, how long was measured, and its 95% interval."""
    length = f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.0f} min"
    low, high = poisson_interval(events, hours)
    return f"{events} in {length}: {_plain(low)} to {_plain(high)} per hour"


def _plain(rate: float) -> str:
    return f"{rate:.0f}" if rate >= 10 or not rate else f"{rate:.1f}"
