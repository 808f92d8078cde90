from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from earmark_training.evaluation.conditions import CALIBRATED, conditions_for
from earmark_training.evaluation.cross_validation import cross_validate
from earmark_training.evaluation.evaluation_set import from_folders

if TYPE_CHECKING:
    from pathlib import Path

    from earmark_spotter import SpotterModel


@pytest.mark.slow
def test_thresholds_are_measured_on_the_speakers_on_which_they_were_not_chosen(
    tone_model: SpotterModel, tone_clips: Path, tone_speech: Path, tmp_path: Path
):
    """A second reader says the same as the first, so each half has one false alarm in each condition."""
    other = tmp_path / "speech" / "8" / "1"
    shutil.copytree(tone_speech / "7" / "1", other)
    (other / "7-1-0000.wav").rename(other / "8-1-0000.wav")
    (other / "8-1.trans.txt").write_text((other / "7-1.trans.txt").read_text().replace("7-1-", "8-1-"))
    (other / "7-1.trans.txt").unlink()
    readers = [tone_speech, tmp_path / "speech"]
    corpus = from_folders(tone_clips, readers, "testing", tmp_path / "corpus").corpus
    metrics, details = cross_validate(tone_model, corpus, seed=7, fa_per_hour=1000)
    conditions = sum(c.name in CALIBRATED for c in conditions_for(corpus))
    assert conditions == len(CALIBRATED)
    assert details["alarms"] == 2 * conditions
    assert details["hours"] == pytest.approx(conditions / 60, abs=1e-3)
    assert details["recall_clean"] == 1.0
    assert {m.name for m in metrics} == {
        f"crossvalidated_{name}" for name in ("found_clean", "found_10db", "false_alarms_per_hour")
    }
