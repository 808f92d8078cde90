from __future__ import annotations

import pytest
from earmark_training.evaluation.intervals import rate_text


@pytest.mark.parametrize(
    ("events", "hours", "text"),
    [
        (0, 0.4, "0 in 24 min: 0 to 9.2 per hour"),
        (0, 3.0, "0 in 3.0 h: 0 to 1.2 per hour"),
        (2, 3.0, "2 in 3.0 h: 0.1 to 2.4 per hour"),
        (40, 1.5, "40 in 1.5 h: 19 to 36 per hour"),
    ],
)
def test_a_rate_has_its_count_its_hours_and_its_interval(events: int, hours: float, text: str):
    assert rate_text(events, hours) == text
