"""Operating points of a keyword."""

from __future__ import annotations

from earmark_cli.tune.operating_point import KeywordScores
from earmark_client import ActiveKeyword


def test_the_proposed_threshold_separates_detected_recordings_from_rejected_peaks() -> None:
    active = ActiveKeyword("stop", 0.9, 0.5)
    scores = KeywordScores(
        active, recording_scores=[0.2, 0.7, 0.9], other_peaks=[0.6, 0.4, 0.3], other_hours=1.0
    )
    for alarms_per_hour, missed, alarms, (lowest, highest) in [
        (0.5, 1, 0, (0.6, 0.7)),  # rejects the peak at 0.6
        (1.5, 1, 1, (0.4, 0.7)),  # rejects the peak at 0.4
        (2.5, 1, 1, (0.3, 0.7)),
        (9.0, 0, 3, (0.05, 0.2)),
    ]:
        proposed = scores.point_for(alarms_per_hour)
        assert lowest < proposed.threshold < highest
        assert (proposed.missed, proposed.alarms) == (missed, alarms)
