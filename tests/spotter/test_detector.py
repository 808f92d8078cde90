from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from earmark_spotter import (
    Detection,
    Detector,
    KeywordError,
    KeywordSetting,
    ModelMetadata,
    ThresholdError,
    resolve_settings,
)
from earmark_spotter.metadata import parse_metadata
from hypothesis import given
from hypothesis import strategies as st
from support import tiny_model

SILENCE, UNKNOWN, LOW, MID, HIGH = range(5)
FRAME = 320
# 20 ms frames: hold 5 frames, separation 10, refractory 25, end lag 1, duration 3.
META = parse_metadata(json.dumps(tiny_model.METADATA))
HOLD, SEPARATION, REFRACTORY = 5, 10, 25


def changed(**fields: Any) -> ModelMetadata:
    document = tiny_model.metadata()
    document["detector"] |= fields
    return parse_metadata(json.dumps(document))


def scores_of(peaks: dict[int, tuple[int, float]], frames: int = 60) -> np.ndarray:
    """Return scores of silence, [frames, 5], except for one class and its score in some frames."""
    scores = np.zeros((frames, 5), np.float32)
    scores[:, SILENCE] = 1
    for frame, (index, score) in peaks.items():
        scores[frame, index] = score
        scores[frame, SILENCE] = 1 - score
    return scores


def detect(
    scores: np.ndarray, *settings: KeywordSetting, meta: ModelMetadata = META, flush: bool = True
) -> list[Detection]:
    detector = Detector(meta, resolve_settings(meta, settings))
    detections = detector.push(scores)
    return detections + detector.flush() if flush else detections


def ids(detections: list[Detection]) -> list[str]:
    return [detection.id for detection in detections]


def test_silence_causes_no_detection() -> None:
    assert detect(scores_of({})) == []


def test_a_peak_is_one_detection_at_its_highest_frame() -> None:
    scores = scores_of({20: (LOW, 0.61), 21: (LOW, 0.7), 22: (LOW, 0.9), 23: (LOW, 0.8), 24: (LOW, 0.65)})
    (detection,) = detect(scores)
    assert detection.keyword == "low"
    assert detection.id == "low-22"
    assert detection.confidence == pytest.approx(0.9)
    assert detection.end_sample == 23 * FRAME - 320  # the end of the peak's frame, less the end lag of 20 ms
    assert detection.start_sample == detection.end_sample - 960  # a duration of 60 ms


def test_the_threshold_itself_counts_as_reached() -> None:
    setting = KeywordSetting("low", threshold=0.5)
    assert ids(detect(scores_of({20: (LOW, 0.5)}), setting)) == ["low-20"]
    assert detect(scores_of({20: (LOW, np.nextafter(np.float32(0.5), np.float32(0)))}), setting) == []


def test_a_detection_is_returned_when_the_peak_hold_ends() -> None:
    scores = scores_of({20: (LOW, 0.9)})
    detector = Detector(META, resolve_settings(META))
    assert detector.push(scores[: 20 + HOLD]) == []
    assert ids(detector.push(scores[20 + HOLD : 21 + HOLD])) == ["low-20"]


def test_a_higher_score_within_the_peak_hold_moves_the_peak() -> None:
    scores = scores_of({20: (LOW, 0.7), 24: (MID, 0.8), 28: (LOW, 0.9)})
    assert ids(detect(scores)) == ["low-28"]


def test_a_plateau_counts_from_its_first_frame() -> None:
    rounding = np.random.default_rng(0).uniform(0, 1e-6, 8)
    scores = scores_of({20 + i: (LOW, 0.99 + rounding[i]) for i in range(8)})
    assert ids(detect(scores)) == ["low-20"]


def test_the_same_keyword_is_refractory() -> None:
    peaks = {10: (LOW, 0.9), 10 + REFRACTORY - 1: (LOW, 0.95)}
    assert ids(detect(scores_of(peaks))) == ["low-10"]
    peaks = {10: (LOW, 0.9), 10 + REFRACTORY: (LOW, 0.7)}
    assert ids(detect(scores_of(peaks))) == ["low-10", f"low-{10 + REFRACTORY}"]


def test_another_keyword_is_blocked_for_the_separation_only() -> None:
    peaks = {10: (LOW, 0.9), 10 + SEPARATION - 1: (MID, 0.95)}
    assert ids(detect(scores_of(peaks))) == ["low-10"]
    peaks = {10: (LOW, 0.9), 10 + SEPARATION: (MID, 0.7)}
    assert ids(detect(scores_of(peaks))) == ["low-10", f"mid-{10 + SEPARATION}"]


def test_a_refractory_period_can_be_requested() -> None:
    peaks = {10: (LOW, 0.9), 20: (LOW, 0.9), 40: (LOW, 0.9)}
    assert ids(detect(scores_of(peaks), KeywordSetting("low", refractory_ms=200))) == [
        "low-10",
        "low-20",
        "low-40",
    ]
    assert ids(detect(scores_of(peaks), KeywordSetting("low", refractory_ms=601))) == ["low-10"]


def test_a_later_detection_does_not_shorten_a_refractory_period() -> None:
    peaks = {10: (LOW, 0.9), 22: (MID, 0.9), 33: (LOW, 0.9), 36: (HIGH, 0.9)}
    assert ids(detect(scores_of(peaks))) == ["low-10", "mid-22", "high-36"]


def test_only_requested_keywords_are_detected() -> None:
    scores = scores_of({10: (LOW, 0.9), 30: (MID, 0.9)})
    assert ids(detect(scores, KeywordSetting("mid"))) == ["mid-30"]


def test_classes_that_are_not_keywords_are_never_detected() -> None:
    assert detect(scores_of({10: (UNKNOWN, 1.0), 30: (SILENCE, 1.0)})) == []


def test_flush_returns_the_open_candidate() -> None:
    scores = scores_of({20: (LOW, 0.9)}, frames=22)
    assert detect(scores, flush=False) == []
    assert ids(detect(scores)) == ["low-20"]


def test_without_a_peak_hold_the_first_frame_decides() -> None:
    scores = scores_of({20: (LOW, 0.7), 21: (LOW, 0.9)})
    assert ids(detect(scores, meta=changed(hold_ms=0))) == ["low-20"]


def test_offsets_never_lie_before_the_stream() -> None:
    (detection,) = detect(scores_of({0: (LOW, 0.9)}))
    assert (detection.start_sample, detection.end_sample) == (0, 0)


def test_an_empty_request_selects_every_keyword_as_calibrated() -> None:
    active = resolve_settings(META)
    assert [(k.keyword, k.class_index, k.threshold, k.refractory_ms) for k in active] == [
        ("low", 2, 0.6, 500),
        ("mid", 3, 0.6, 500),
        ("high", 4, 0.6, 500),
    ]


def test_a_request_is_completed_by_the_calibration() -> None:
    active = resolve_settings(META, [KeywordSetting("high", threshold=0.3), KeywordSetting("low", None, 0)])
    assert [(k.keyword, k.class_index, k.threshold, k.refractory_ms) for k in active] == [
        ("high", 4, 0.3, 500),
        ("low", 2, 0.6, 0),
    ]


@pytest.mark.parametrize("name", ["", "loud", "LOW", "_unknown_", "low "])
def test_an_unknown_keyword_is_rejected(name: str) -> None:
    with pytest.raises(KeywordError, match="low, mid, high") as caught:
        resolve_settings(META, [KeywordSetting(name)])
    assert caught.value.reason == "UNKNOWN_KEYWORD"


def test_a_keyword_requested_twice_is_rejected() -> None:
    with pytest.raises(KeywordError, match="twice"):
        resolve_settings(META, [KeywordSetting("low"), KeywordSetting("low", 0.5)])


@pytest.mark.parametrize("threshold", [0, 1, -0.1, 1.1, np.nan, np.inf])
def test_a_threshold_out_of_range_is_rejected(threshold: float) -> None:
    with pytest.raises(ThresholdError, match="'low'") as caught:
        resolve_settings(META, [KeywordSetting("low", threshold)])
    assert caught.value.reason == "BAD_THRESHOLD"


@pytest.mark.parametrize("refractory_ms", [-1, 60_001, np.nan, np.inf])
def test_a_refractory_period_out_of_range_is_rejected(refractory_ms: float) -> None:
    with pytest.raises(ThresholdError, match="refractory"):
        resolve_settings(META, [KeywordSetting("low", None, refractory_ms)])


@st.composite
def score_frames(draw: st.DrawFn) -> np.ndarray:
    """Draw scores, [frames, 5], with jumps, plateaus and slow drifts."""
    seed = draw(st.integers(0, 2**32 - 1))
    frames = draw(st.integers(0, 150))
    drift = draw(st.sampled_from([0.05, 0.3, 2.0]))
    rng = np.random.default_rng(seed)
    logits = np.cumsum(rng.normal(0, drift, (frames, 5)), axis=0) * draw(st.sampled_from([1.0, 5.0]))
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-1e9))
    return (exponentials / exponentials.sum(axis=1, keepdims=True)).astype(np.float32)


settings_lists = st.lists(
    st.builds(
        KeywordSetting,
        st.sampled_from(["low", "mid", "high"]),
        st.none() | st.floats(0.05, 0.95),
        st.none() | st.floats(0, 1000),
    ),
    max_size=3,
    unique_by=lambda setting: setting.keyword,
)


@given(scores=score_frames(), settings=settings_lists, sizes=st.lists(st.integers(1, 30), min_size=1))
def test_detections_do_not_depend_on_the_chunks(
    scores: np.ndarray, settings: list[KeywordSetting], sizes: list[int]
) -> None:
    active = resolve_settings(META, settings)
    whole = Detector(META, active)
    expected = whole.push(scores) + whole.flush()
    detector = Detector(META, active)
    found, start, i = [], 0, 0
    while start < len(scores):
        found += detector.push(scores[start : start + sizes[i % len(sizes)]])
        start, i = start + sizes[i % len(sizes)], i + 1
    assert found + detector.flush() == expected


@given(scores=score_frames(), settings=settings_lists, data=st.data())
def test_a_detector_continues_from_a_snapshot(
    scores: np.ndarray, settings: list[KeywordSetting], data: st.DataObject
) -> None:
    active = resolve_settings(META, settings)
    split = data.draw(st.integers(0, len(scores)))
    first = Detector(META, active)
    before = first.push(scores[:split])
    second = Detector(META, active, snapshot=first.snapshot())
    assert second.frame == first.frame == split
    assert second.decided_sample == first.decided_sample
    assert second.push(scores[split:]) + second.flush() == first.push(scores[split:]) + first.flush()
    assert ids(before) == ids(Detector(META, active).push(scores[:split]))


@given(scores=score_frames(), settings=settings_lists, smoothing=st.sampled_from([1, 2, 7]))
def test_nothing_is_decided_before_the_next_decision_frame(
    scores: np.ndarray, settings: list[KeywordSetting], smoothing: int
) -> None:
    padded = np.pad(scores, ((smoothing, 0), (0, 0)))
    scores = np.lib.stride_tricks.sliding_window_view(padded, smoothing, axis=0).mean(axis=2)[1:]
    meta = changed(smoothing_frames=smoothing)
    detector = Detector(meta, resolve_settings(meta, settings))
    earliest = []
    for frame, row in enumerate(scores):
        earliest.append(detector.next_decision_frame)
        if detector.push(row[np.newaxis]):
            # The frame was predicted correctly ever since the peak.
            assert earliest[-1] == frame
            assert max(earliest) <= frame


def test_while_scores_are_low_a_decision_is_as_far_away_as_the_smoothing_allows() -> None:
    meta = changed(smoothing_frames=10)
    detector = Detector(meta, resolve_settings(meta))
    for score, missing_frames in ((0.0, 6), (0.35, 3), (0.55, 1), (0.1, 5), (0.4, 2)):
        detector.push(scores_of({0: (MID, score)}, frames=1))
        assert detector.next_decision_frame == detector.frame + missing_frames - 1 + HOLD
    detector.push(scores_of({0: (MID, 0.9)}, frames=HOLD + 1))
    assert detector.next_decision_frame == detector.frame + 5 + HOLD


def test_a_decision_is_as_far_away_as_the_blocked_keywords_allow() -> None:
    detector = Detector(META, resolve_settings(META))
    detector.push(scores_of({0: (MID, 0.9)}, frames=HOLD + 1))
    # The keyword was detected and is refractory; the others are blocked for the separation.
    assert detector.next_decision_frame == SEPARATION + HOLD


@given(scores=score_frames(), settings=settings_lists)
def test_detections_obey_thresholds_and_refractory_periods(
    scores: np.ndarray, settings: list[KeywordSetting]
) -> None:
    active = {keyword.keyword: keyword for keyword in resolve_settings(META, settings)}
    detector = Detector(META, list(active.values()))
    detections, decided = [], [0]
    for row in scores:
        found = detector.push(row[np.newaxis])
        # Every detection that ended before the decided sample had been returned by then.
        assert all(detection.end_sample >= decided[-1] for detection in found)
        detections += found
        decided.append(detector.decided_sample)
    last = detector.flush()
    assert all(detection.end_sample >= decided[-1] for detection in last)
    assert decided == sorted(decided)

    detections += last
    assert len(set(ids(detections))) == len(detections)
    peaks = [int(detection.id.rsplit("-", 1)[1]) for detection in detections]
    assert peaks == sorted(peaks)
    for detection, peak in zip(detections, peaks, strict=True):
        keyword = active[detection.keyword]
        assert detection.confidence == min(1.0, float(scores[peak, keyword.class_index]))
        assert scores[peak, keyword.class_index] >= np.float32(keyword.threshold)
        assert 0 <= detection.start_sample <= detection.end_sample <= len(scores) * FRAME
    for i, (earlier, peak) in enumerate(zip(detections, peaks, strict=True)):
        for later, later_peak in zip(detections[i + 1 :], peaks[i + 1 :], strict=True):
            same = earlier.keyword == later.keyword
            wanted_ms = active[earlier.keyword].refractory_ms if same else META.detector.separation_ms
            assert (later_peak - peak) * 20 >= wanted_ms
