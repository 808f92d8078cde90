"""Rivals: other keywords that reached the proposal threshold at a peak. The verifier chooses among them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from earmark_spotter import Detection, Detector, KeywordSetting, resolve_settings
from earmark_spotter.detector import Candidate, DetectorSnapshot
from earmark_spotter.errors import ResumeError
from earmark_spotter.metadata import parse_metadata
from earmark_spotter.resume import ResumeState, decode_token, encode_token
from hypothesis import given
from hypothesis import strategies as st
from support import tiny_model
from support.tokens import sealed

if TYPE_CHECKING:
    from numpy.typing import NDArray

SILENCE, UNKNOWN, LOW, MID, HIGH = range(5)
META = parse_metadata(json.dumps(tiny_model.VERIFIED_METADATA))  # proposals from 0.3 on
ALL_HALF = resolve_settings(META, [KeywordSetting(name, 0.5) for name in META.keyword_names])
KEY = b"key"


def frames_of(peaks: dict[int, dict[int, float]], frames: int = 40) -> NDArray[np.float32]:
    scores = np.zeros((frames, 5), np.float32)
    for frame, by_class in peaks.items():
        for index, score in by_class.items():
            scores[frame, index] = score
    return scores


def detector(finals: dict[int, float], snapshot: DetectorSnapshot | None = None) -> Detector:
    def final_scores(candidate: Candidate, hold_end: int) -> dict[int, float]:
        del hold_end
        return {index: finals[index] for index in candidate.proposed}

    return Detector(META, ALL_HALF, snapshot=snapshot, final_scores=final_scores)


@pytest.mark.parametrize(
    ("finals", "expected"),
    [
        ({LOW: 0.9, MID: 0.1, HIGH: 0.1}, [("low-10", 0.9)]),
        ({LOW: 0.1, MID: 0.8, HIGH: 0.1}, [("mid-10", 0.8)]),
        ({LOW: 0.6, MID: 0.8, HIGH: 0.7}, [("mid-10", 0.8)]),
        ({LOW: 0.1, MID: 0.1, HIGH: 0.8}, [("high-10", 0.8)]),
        ({LOW: 0.4, MID: 0.4, HIGH: 0.4}, []),
    ],
)
@pytest.mark.parametrize(
    "peaks",
    [
        {10: {LOW: 0.6, MID: 0.35, HIGH: 0.31}},
        {8: {MID: 0.5}, 9: {HIGH: 0.4}, 10: {LOW: 0.6}},
        {10: {LOW: 0.6}, 12: {MID: 0.5, HIGH: 0.5}},
    ],
    ids=["at once", "before", "after"],
)
def test_the_verifier_chooses_among_the_keywords_of_a_peak(
    peaks: dict[int, dict[int, float]], finals: dict[int, float], expected: list[tuple[str, float]]
) -> None:
    spotting = detector(finals)
    found = spotting.push(frames_of(peaks)) + spotting.flush()
    assert [(d.id, d.confidence) for d in found] == expected


def test_a_keyword_below_the_proposal_threshold_is_no_rival() -> None:
    spotting = detector({LOW: 0.1})  # asks for no other final score
    assert not spotting.push(frames_of({10: {LOW: 0.6, MID: 0.29}}))


def test_a_rival_is_verified_with_its_own_highest_score() -> None:
    asked = []

    def final_scores(candidate: Candidate, hold_end: int) -> dict[int, float]:
        rounded = {index: round(score, 3) for index, score in candidate.proposed.items()}
        asked.append((rounded, candidate.frame, hold_end))
        return dict.fromkeys(rounded, 0.0)

    spotting = Detector(META, ALL_HALF, final_scores=final_scores)
    spotting.push(frames_of({8: {MID: 0.4}, 9: {MID: 0.5}, 10: {LOW: 0.6, MID: 0.3}}))
    assert asked == [({LOW: 0.6, MID: 0.5}, 10, 16 * META.frame_samples)]


def test_without_a_verifier_the_highest_score_decides() -> None:
    spotting = Detector(META, ALL_HALF)
    spotting.push(frames_of({10: {LOW: 0.9, MID: 0.6}}, frames=12))
    candidate = spotting.snapshot().candidate
    assert candidate is not None
    assert not candidate.rivals


@st.composite
def streams(draw: st.DrawFn) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Draw scores, [frames, 5], of keywords that compete, and final scores, [frames, 5]."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    frames = draw(st.integers(1, 120))
    logits = np.cumsum(rng.normal(0, 0.6, (frames, 5)), axis=0)
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return scores.astype(np.float32), rng.uniform(0, 1, (frames, 5))


def spotted(
    scores: NDArray[np.float32], finals: NDArray[np.float64], cuts: list[int]
) -> tuple[list[Detection], NDArray[np.float32]]:
    """Return the detections of a stream that resumes at each cut, and the final scores that it asked for."""
    asked = np.zeros_like(scores)

    def final_scores(candidate: Candidate, hold_end: int) -> dict[int, float]:
        del hold_end
        classes = list(candidate.proposed)
        asked[candidate.frame, classes] = finals[candidate.frame, classes]
        return dict(zip(classes, asked[candidate.frame, classes].tolist(), strict=True))

    found: list[Detection] = []
    spotting = Detector(META, ALL_HALF, final_scores=final_scores)
    for start, end in zip([0, *cuts], [*cuts, len(scores)], strict=True):
        found += spotting.push(scores[start:end])
        state = decode_token(encode_token(ResumeState(0, 0, spotting.snapshot()), "d", KEY), "d", [KEY])
        resumed = Detector(META, ALL_HALF, snapshot=state.detector, final_scores=final_scores)
        assert resumed.can_reach(state.detector)
        spotting = resumed
    return found + spotting.flush(), asked


@given(stream=streams(), data=st.data())
def test_a_resumed_stream_has_the_same_detections(
    stream: tuple[NDArray[np.float32], NDArray[np.float64]], data: st.DataObject
) -> None:
    scores, finals = stream
    cuts = sorted(data.draw(st.lists(st.integers(0, len(scores)), max_size=6)))
    whole, asked = spotted(scores, finals, [])
    assert spotted(scores, finals, cuts)[0] == whole
    # A detector without a verifier finds the same in the final scores.
    plain = Detector(META, ALL_HALF)
    again = plain.push(asked) + plain.flush()
    assert [(d.id, d.confidence) for d in again] == [(d.id, pytest.approx(d.confidence)) for d in whole]


@pytest.mark.parametrize(
    "rivals", [((LOW, 0.4),), ((MID, 0.4), (MID, 0.3)), ((SILENCE, 0.4),), ((99, 0.4),)], ids=str
)
def test_a_snapshot_with_impossible_rivals_is_recognized(rivals: tuple[tuple[int, float], ...]) -> None:
    spotting = detector({})
    assert spotting.can_reach(DetectorSnapshot(12, Candidate(LOW, 0.6, 10, ((MID, 0.4),)), ()))
    assert not spotting.can_reach(DetectorSnapshot(12, Candidate(LOW, 0.6, 10, rivals), ()))
    assert not Detector(META, ALL_HALF).can_reach(
        DetectorSnapshot(12, Candidate(LOW, 0.6, 10, ((MID, 0.4),)), ())
    )


@pytest.mark.parametrize(
    "rivals", [None, 1, [1], [[2]], [[3, 0.4, 1]], [[3, "0.4"]], [[3, 1e9]], [[-1, 0.4]], [[3, 0.4]] * 2]
)
def test_a_token_with_invalid_rivals_is_rejected(rivals: object) -> None:
    snapshot = DetectorSnapshot(12, Candidate(LOW, 0.6, 10, ((MID, 0.4),)), ())
    token = encode_token(ResumeState(0, 0, snapshot), "d", KEY)
    fields = json.loads(token[18:])
    assert fields[4][3] == [[MID, 0.4]]
    fields[4][3] = rivals
    try:
        state = decode_token(sealed(json.dumps(fields).encode(), KEY), "d", [KEY])
    except ResumeError:
        return
    assert not detector({}).can_reach(state.detector)
