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
        (1.5, 1, 0, (0.6, 0.7)),  # may allow that peak, which would detect no more recordings
        (2.5, 1, 0, (0.6, 0.7)),
        (9.0, 0, 3, (0.05, 0.2)),
    ]:
        proposed = scores.point_for(alarms_per_hour)
        assert lowest < proposed.threshold < highest
        assert (proposed.missed, proposed.alarms) == (missed, alarms)


def keyword(recordings: int, score: float, hours: float, peak: float) -> KeywordScores:
    """Return a keyword with a threshold of 0.92, recordings of one score, and one peak of other audio."""
    return KeywordScores(ActiveKeyword("no", 0.92, 0.5), [score] * recordings, [peak], hours)


def test_a_threshold_is_lowered_only_with_enough_audio_without_the_keyword() -> None:
    assert keyword(60, 0.6, 10 / 60, 0.3).proposal_for(0.5).threshold == 0.92
    assert keyword(60, 0.6, 5.9, 0.3).proposal_for(0.5).threshold == 0.92
    assert 0.3 < keyword(60, 0.6, 6.0, 0.3).proposal_for(0.5).threshold < 0.6


def test_a_threshold_is_raised_only_for_false_alarms_or_with_enough_recordings() -> None:
    assert keyword(29, 0.99, 6.0, 0.91).proposal_for(0.1).threshold == 0.92
    assert 0.92 < keyword(30, 0.99, 6.0, 0.91).proposal_for(0.1).threshold < 0.99
    assert 0.95 < keyword(3, 0.99, 1 / 60, 0.95).proposal_for(0.5).threshold < 0.99


def test_a_rate_of_nothing_counted_is_bounded_by_the_length_of_the_audio() -> None:
    assert keyword(30, 0.9, 1.5, 0.3).lowest_rate == 2.0
    assert keyword(30, 0.9, 0.0, 0.3).lowest_rate == float("inf")
