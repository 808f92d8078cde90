from __future__ import annotations

import numpy as np
import pytest
from earmark_training.evaluation.slices import median_pitch_hz

RATE = 16_000


@pytest.mark.parametrize("hz", [90, 140, 220, 330])
def test_the_pitch_is_that_of_the_voice(hz: float):
    time = np.arange(RATE // 2) / RATE
    voice = sum(np.sin(2 * np.pi * h * hz * time) / h for h in range(1, 15))
    assert median_pitch_hz(voice) == pytest.approx(hz, rel=0.02)


def test_noise_has_no_pitch():
    assert median_pitch_hz(np.random.default_rng(0).normal(size=RATE // 2)) is None
