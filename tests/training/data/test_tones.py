"""Synthetic signal tones."""

from __future__ import annotations

import numpy as np
import pytest
from earmark_training.data.tones import SIGNALS, signal_tones

RATE = 16_000


@pytest.mark.parametrize("kind", SIGNALS)
def test_each_kind_is_the_same_for_a_seed_and_within_full_scale(kind: str):
    first, again, other = (signal_tones(np.random.default_rng(s), 5 * RATE, kind) for s in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.dtype == np.float32
    assert len(first) == 5 * RATE
    assert 0.9 < np.abs(first).max() <= 1.0


def test_every_kind_is_drawn_where_none_is_named(monkeypatch: pytest.MonkeyPatch):
    drawn: set[str] = set()
    for name, make in dict(SIGNALS).items():
        monkeypatch.setitem(SIGNALS, name, lambda rng, name=name, make=make: drawn.add(name) or make(rng))
    for seed in range(60):
        signal_tones(np.random.default_rng(seed), RATE)
    assert drawn == set(SIGNALS)
