from __future__ import annotations

import numpy as np
from earmark_audio.peak_picker import pick_peaks


def test_the_highest_peaks_are_picked_first_and_suppress_their_neighbours() -> None:
    score = np.zeros(100, np.float32)
    score[[10, 12, 15, 30, 60]] = [0.5, 0.9, 0.8, 0.6, 0.04]
    assert pick_peaks(score, lowest=0.05, before=2, after=3).tolist() == [12, 15, 30]
    assert pick_peaks(score, lowest=0.05, before=1, after=4).tolist() == [12, 30, 10]
    assert pick_peaks(score, lowest=0.05, before=2, after=3, count=2).tolist() == [12, 15]
