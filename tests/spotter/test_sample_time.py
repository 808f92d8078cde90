"""Conversions between samples and nanoseconds."""

from __future__ import annotations

from fractions import Fraction

from earmark_spotter.sample_time import NANOSECONDS, nearest_sample, offset_ns
from hypothesis import given
from hypothesis import strategies as st

RATES = st.integers(8000, 192_000)


@given(rate_hz=RATES, duration_ns=st.integers(0, 3600 * NANOSECONDS))
def test_a_duration_is_rounded_to_the_nearest_sample(rate_hz: int, duration_ns: int) -> None:
    assert nearest_sample(duration_ns, rate_hz) == round(Fraction(duration_ns * rate_hz, NANOSECONDS))


def test_halves_are_rounded_to_the_even_sample() -> None:
    assert [nearest_sample(62_500 * i // 2, 16_000) for i in range(8)] == [0, 0, 1, 2, 2, 2, 3, 4]


@given(rate_hz=RATES, samples=st.integers(0, 3600 * 192_000))
def test_a_number_of_samples_survives_the_conversion_to_nanoseconds(rate_hz: int, samples: int) -> None:
    assert nearest_sample(offset_ns(samples, rate_hz), rate_hz) == samples
