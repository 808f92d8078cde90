from __future__ import annotations

import numpy as np
from earmark_training.evaluation.non_speech import non_speech_sounds


def test_sounds_are_the_same_for_a_seed_and_within_full_scale():
    for (name, first), (_, again), (_, other) in zip(*(non_speech_sounds(s) for s in (1, 1, 2)), strict=True):
        assert np.abs(first).max() <= 1.0, name
        assert first.dtype == np.float32
        assert len(first) == 5 * 16_000
        np.testing.assert_array_equal(first, again)
        assert name == "digital silence" or not np.array_equal(first, other)
