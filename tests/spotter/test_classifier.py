"""Classification of a clip: the first network's scores, and the verifier's where it has checked a keyword."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from earmark_spotter import ClipClassifier, SpotterModel, classify, final_scores
from support import tiny_model

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

SILENCE, UNKNOWN, LOW, MID, HIGH = range(5)


def classifier(best: dict[int, float]) -> ClipClassifier:
    """Return a classifier of a clip of another word, in one of whose frames, of 40 ms, a keyword peaks."""
    one = ClipClassifier(5, (LOW, MID, HIGH), SILENCE, 40)
    frames = np.tile(np.array([0.02, 0.98, 0, 0, 0], np.float32), (20, 1))
    frames[12] = [0, max(0, 1 - sum(best.values())), *(best.get(i, 0) for i in (LOW, MID, HIGH))]
    one.push(frames)
    return one


def scores(best: dict[int, float], *finals: tuple[int, float]) -> NDArray[np.float32]:
    one = classifier(best)
    for index, score in finals:
        one.add_finals({index: score})
    return one.scores


def test_a_keyword_that_the_verifier_rejects_is_another_word() -> None:
    assert scores({LOW: 0.9}).argmax() == LOW
    assert scores({LOW: 0.9}, (LOW, 0.02)).argmax() == UNKNOWN


def test_the_verifier_chooses_among_the_keywords_of_a_peak() -> None:
    assert scores({LOW: 0.6, MID: 0.3}, (LOW, 0.1), (MID, 0.7)).argmax() == MID


@pytest.mark.parametrize(
    "finals",
    [
        [],
        [(LOW, 0.4)],
        [(LOW, 0.9), (MID, 0.8)],
        [(LOW, 0), (MID, 1)],
        [(LOW, 0.05), (MID, 0.25), (HIGH, 1)],  # their sum is rounded to more than 1
    ],
)
def test_the_scores_are_probabilities(finals: list[tuple[int, float]]) -> None:
    for best in ({LOW: 0.5, MID: 0.3}, {LOW: 0.9, MID: 0.4}):  # the latter if MID was added later
        found = scores(best, *finals)
        assert found.min() >= 0
        assert found.sum() == pytest.approx(1, abs=1e-5)


def test_the_other_classes_share_the_rest_as_before() -> None:
    before, after = scores({LOW: 0.5, HIGH: 0.2}), scores({LOW: 0.5, HIGH: 0.2}, (LOW, 0.1))
    others = [SILENCE, UNKNOWN, MID, HIGH]
    assert after[others] / after[others].sum() == pytest.approx(before[others] / before[others].sum())


def test_of_several_peaks_of_a_keyword_the_highest_final_score_counts() -> None:
    once = scores({LOW: 0.5}, (LOW, 0.6))
    assert scores({LOW: 0.5}, (LOW, 0.6), (LOW, 0.2)) == pytest.approx(once)
    assert scores({LOW: 0.5}, (LOW, 0.2), (LOW, 0.6)) == pytest.approx(once)


def test_if_nothing_but_a_rejected_keyword_is_possible_the_rest_is_silence() -> None:
    assert scores({LOW: 1.0}, (LOW, 0)).tolist() == [1, 0, 0, 0, 0]


def test_a_clip_of_a_model_with_a_verifier_is_classified_by_its_final_scores(tmp_path: Path) -> None:
    def model(verified: bool) -> SpotterModel:
        document = tiny_model.VERIFIED_METADATA if verified else tiny_model.METADATA
        path = tmp_path / f"{verified}.onnx"
        return SpotterModel.load(
            tiny_model.build(path, document=document, verifier=tiny_model.verifier() if verified else None)
        )

    verified = model(True)
    clip = tiny_model.recording([(0.3, "low"), (0.62, "mid")], 1.2)
    found = classify(verified, clip)
    highest = final_scores(verified, np.pad(clip, (0, 16_000))).max(0)
    assert 0 < highest[LOW] < 1
    assert found[LOW] / found[MID] == pytest.approx(
        (highest[LOW] / (1 + 8 * highest[LOW])) / (highest[MID] / (1 + 8 * highest[MID])), rel=1e-4
    )
    assert found.tolist() != pytest.approx(classify(model(False), clip).tolist(), abs=1e-3)
