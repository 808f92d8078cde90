"""What audio may be, wherever it comes from: sample rates, channels, and the scale of float samples."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MIN_SAMPLE_RATE_HZ = 8000
MAX_SAMPLE_RATE_HZ = 192_000
MAX_CHANNELS = 8

MAX_PEAK = 16.0
"""Float samples beyond this (24 dB over full scale) are integers that nobody scaled, not audio."""


def rate_problem(sample_rate_hz: int) -> str | None:
    """Return what is wrong with a sample rate, as a sentence; None if it is supported."""
    if MIN_SAMPLE_RATE_HZ <= sample_rate_hz <= MAX_SAMPLE_RATE_HZ:
        return None
    return (
        f"The sample rate {sample_rate_hz} Hz is not supported: "
        f"it must be {MIN_SAMPLE_RATE_HZ} to {MAX_SAMPLE_RATE_HZ} Hz."
    )


def channel_problem(channel_count: int) -> str | None:
    """Return what is wrong with a number of channels, as a sentence; None if it is supported."""
    if 1 <= channel_count <= MAX_CHANNELS:
        return None
    return f"{channel_count} channels are not supported: there must be 1 to {MAX_CHANNELS}."


def sample_problem(samples: NDArray[np.float32]) -> str | None:
    """Return what is wrong with float samples, as a sentence: not finite, or far beyond full scale."""
    if not samples.size:
        return None
    # NaN propagates through max() and min() and fails the comparison, as infinity does.
    peak = max(float(samples.max()), -float(samples.min()))
    if peak <= MAX_PEAK:
        return None
    remedy = "divide 16-bit integers by 32768" if math.isfinite(peak) else "replace it by 0"
    return f"The float samples must be finite and within full scale, -1 to 1, but one is {peak:g}: {remedy}."
