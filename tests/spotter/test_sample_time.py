"""Conversions between samples and nanoseconds."""

from __future__ import annotations

from fractions import Fraction

from earmark_spotter.sample_time import NANOSECONDS, SilenceRounding, offset_ns
from hypothesis import given
from hypothesis import strategies as st

RATES = st.integers(8000, 192_000)


@given(rate_hz=RATES, durations=st.lists(st.integers(0, 3600 * NANOSECONDS), max_size=50))
def test_silences_never_drift_from_their_exact_sum(rate_hz: int, durations: list[int]) -> None:
    rounding = SilenceRounding(rate_hz)
    total, exact = 0, Fraction(0)
    for i, duration_ns in enumerate(durations, 1):
        samples = rounding.samples(duration_ns)
        assert samples >= 0
        total += samples
        exact += Fraction(duration_ns * rate_hz, NANOSECONDS)
        # Half a sample, and less than a nanosecond for each silence that counts as whole samples.
        assert abs(total - exact) <= Fraction(1, 2) + Fraction(i * rate_hz, NANOSECONDS)


def test_many_short_silences_add_up() -> None:
    for nanoseconds, rate_hz, count in (
        (10_030_000, 16_000, 100_000),
        (20_000_000, 11_025, 100_000),
        (31_300, 16_000, 80_000),
        (62_000, 8000, 60_000),
        (1, 8000, 1_000_000),
    ):
        rounding = SilenceRounding(rate_hz)
        total = sum(rounding.samples(nanoseconds) for _ in range(count))
        assert abs(total - nanoseconds * count * rate_hz / NANOSECONDS) <= 0.5


@given(rate_hz=RATES, lengths=st.lists(st.integers(0, 1_000_000), max_size=50), round_up=st.booleans())
def test_whole_samples_stay_exact_although_nanoseconds_are_rounded(
    rate_hz: int, lengths: list[int], round_up: bool
) -> None:
    rounding = SilenceRounding(rate_hz)
    for samples in lengths:
        duration_ns = -(-samples * NANOSECONDS // rate_hz) if round_up else offset_ns(samples, rate_hz)
        assert rounding.samples(duration_ns) == samples
