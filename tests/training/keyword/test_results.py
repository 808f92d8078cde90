from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
from earmark_training.data.corpus import Recording
from earmark_training.keyword.held_out_conditions import CONDITIONS
from earmark_training.keyword.parallel_training import FineTuneResult
from earmark_training.keyword.report import page
from earmark_training.keyword.results import KeywordResults
from earmark_training.keyword.training_set import TrainingSet
from support.synthetic_words import RATE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

HOUR = Recording("speech", "training", "", 0, 3600 * RATE)
KEYWORDS = ("computer", "jarvis")


def result(left_out: Mapping[int, float]) -> FineTuneResult:
    """Return a network with few false alarms, and its scores of the examples that it was trained without."""
    peaks = {c: {k: np.linspace(0.05, 0.3, 40) for k in KEYWORDS} for c in CONDITIONS}
    scores = np.array(list(left_out.values()))
    anything = cast("Any", None)
    return FineTuneResult(anything, anything, b"", tuple(left_out), scores, peaks, {k: [] for k in KEYWORDS})


def results(
    keyword: str, recorded: Sequence[str], folds: Sequence[Mapping[int, float]], *, real_speech: bool = False
) -> KeywordResults:
    words = tuple(Recording("clip", "training", text, 0, RATE) for text in recorded)
    training_set = TrainingSet(cast("Any", None), KEYWORDS, words, (), (), (HOUR,), (HOUR,))
    files: Any = [cast("Any", type("File", (), {"name": f"{i}.wav"})) for i in range(len(recorded))]
    return KeywordResults(
        keyword, 0.5, files, (), training_set, real_speech, result({}), [result(fold) for fold in folds]
    )


def text_of(one: KeywordResults) -> str:
    about = {"seed": 1, "seconds": 1, "model": "m", "version": "1", "sha256": "0"}
    return page(one.document() | about, {})


@pytest.mark.parametrize("real_speech", [False, True])
def test_a_keyword_without_recordings_beside_one_with_them_has_no_miss_rate(real_speech: bool):
    jarvis = results(
        "jarvis", ["computer"] * 4, [{0: 0.9, 1: 0.8}, {2: 0.9, 3: 0.7}], real_speech=real_speech
    )
    assert [m.name for m in jarvis.metrics(alone=False)] == ["false_alarms_per_hour.jarvis"]
    assert 0 < jarvis.threshold < 1
    assert "The miss rate was not measured." in text_of(jarvis)


def test_the_miss_rate_at_a_raised_threshold_is_that_of_this_threshold():
    scores = np.linspace(0.8, 0.98, 100)
    one = results("computer", ["computer"] * 100, [dict(enumerate(scores))])
    assert one.threshold == pytest.approx(np.quantile(scores, 0.03), abs=1e-4)
    missed, false_alarms = one.metrics()
    assert "; the threshold was raised" in false_alarms.description
    assert missed.value == np.mean(scores < one.threshold) == 0.03
    assert "the threshold of the model, which was raised" in missed.description
    document = one.document()
    assert document["threshold_was_raised"]
    assert document["missed"] == 0.03
    assert sum(take["margin"] < 0 for take in document["takes"]) == 3
    assert "which was raised until few recordings are missed" in text_of(one)


def test_a_threshold_that_recorded_speech_needs_is_not_raised():
    one = results("computer", ["computer"] * 100, [dict.fromkeys(range(100), 0.9)], real_speech=True)
    assert one.raised_threshold is None
    assert "at thresholds for 0.5 false alarms per hour" in one.metrics()[0].description


@pytest.mark.parametrize("hard", ["clean", "television"])
@pytest.mark.parametrize(
    ("peaks_in_hard", "odds"),
    [
        (12, (12 + 4 * 8) / 2.5),  # 0.5 false alarms per hour in five hours
        (40, 40 / 1.0),  # twice as many in the hard condition: one in one hour
    ],
)
def test_the_threshold_keeps_to_the_mean_over_the_conditions_and_to_twice_as_much_in_each(
    hard: str, peaks_in_hard: int, odds: float
):
    def peaks(count: int) -> Any:
        """Return scores of which `count` times the inverse of the odds are higher."""
        return 1 / (1 + (np.arange(count) + 0.5) / count)

    one = results("computer", ["computer"] * 4, [], real_speech=True)
    one.final.peaks.update({c: {"computer": peaks(peaks_in_hard if c == hard else 8)} for c in CONDITIONS})
    assert one.threshold == pytest.approx(odds / (1 + odds), abs=0.01)
    assert one.alarms_in(hard) == 1


@pytest.mark.parametrize(("missed", "more"), [(0, ""), (3, ""), (30, "… and 5 more.")])
def test_the_report_lists_the_keywords_that_were_missed(missed: int, more: str):
    scores = [0.01] * missed + [0.99] * (40 - missed)
    text = text_of(results("computer", ["computer"] * 40, [dict(enumerate(scores))], real_speech=True))
    assert f"Keywords that were missed ({missed})" in text
    assert ("Listen to them" in text) == (missed > 0)
    assert more in text
    assert ("more.</p>" in text) == bool(more)


def test_one_recording_is_named_in_the_singular():
    (missed, _) = results("computer", ["computer"], [{0: 0.9}], real_speech=True).metrics()
    assert "miss rate on 1 recording that the measured network was trained without" in missed.description
