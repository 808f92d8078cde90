from __future__ import annotations

from earmark_training.model.schedule import learning_rate_factor


def test_the_learning_rate_rises_and_falls_to_nothing():
    factors = [learning_rate_factor(step, warmup_steps=10, steps=100) for step in range(100)]
    assert factors.index(max(factors)) in range(8, 12)
    assert max(factors) > 0.95
    assert factors[99] < 0.01
