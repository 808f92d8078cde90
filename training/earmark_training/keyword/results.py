"""The results of fine-tuning for one keyword: its threshold, and the metrics of report and model file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from earmark_spotter.metadata import Metric

from earmark_training.data.corpus import hours
from earmark_training.evaluation.intervals import rate_text, wilson_interval
from earmark_training.evaluation.log_odds import log_odds
from earmark_training.evaluation.operating_point import HIGHEST_THRESHOLD, fa_per_hour_at, threshold_for
from earmark_training.keyword.held_out_conditions import CLEAN

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from earmark_training.keyword.parallel_training import Alarm, FineTuneResult
    from earmark_training.keyword.recordings import RejectedRecording
    from earmark_training.keyword.training_set import TrainingSet

_MISSES_WITHOUT_REAL_SPEECH = 0.03
_EXAMPLES = 5
_HIGHEST_SHARE = 2.0
"""How many false alarms one condition may have, relative to the mean: most of them are near a television."""
_STATED_FA_PER_HOUR = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


@dataclass(frozen=True, slots=True)
class KeywordResults:
    """The exported network, and those of cross-validation, each trained without a fold of the examples."""

    keyword: str
    fa_per_hour: float
    files: Sequence[Path]
    """The file of each measured example of the training set."""
    left_out: Sequence[RejectedRecording]
    training_set: TrainingSet
    real_speech: bool
    """Whether the speech was recorded, not synthesized."""
    final: FineTuneResult
    folds: Sequence[FineTuneResult]

    @property
    def threshold(self) -> float:
        """The threshold for `fa_per_hour`, or the `raised_threshold`."""
        threshold = self.raised_threshold or self._threshold_for(self.final, self.fa_per_hour)
        return round(min(threshold, HIGHEST_THRESHOLD), 4)

    @property
    def raised_threshold(self) -> float | None:
        """A threshold above the one for `fa_per_hour`, None if it is not raised.

        Synthesized speech has too few false alarms. So the threshold is raised, if possible, until 3% of the
        recordings are missed by the networks that were trained without them.
        """
        if self.real_speech or not self.training_set.recordings or not self.measured:
            return None
        scores = np.concatenate([scores for _, scores in map(self._left_out, self.folds)])
        threshold = float(np.quantile(scores, _MISSES_WITHOUT_REAL_SPEECH))
        return threshold if threshold > self._threshold_for(self.final, self.fa_per_hour) else None

    def fa_per_hour_in(self, condition: str) -> float:
        """Return the false alarms per hour of the exported network in a condition, at its threshold."""
        peaks = self.final.peaks[condition][self.keyword]
        return fa_per_hour_at(self.threshold, peaks, self.training_set.held_out_hours)

    def alarms_in(self, condition: str) -> int:
        """Return the number of false alarms of the exported network in a condition, at its threshold."""
        return int((self.final.peaks[condition][self.keyword] >= self.threshold).sum())

    def miss_rate_at(self, fa_per_hour: float) -> float | None:
        """Return the cross-validated miss rate at thresholds for `fa_per_hour`; None without folds.

        Each network's threshold is chosen on the held-out speech, and applied to the examples that the
        network was trained without.
        """
        return self._miss_rate(lambda fold: self._threshold_for(fold, fa_per_hour))

    @property
    def miss_rate(self) -> float | None:
        """The cross-validated miss rate for `fa_per_hour`, or at the raised threshold; None without folds."""
        return self._miss_rate(self._own_threshold)

    def _own_threshold(self, fold: FineTuneResult) -> float:
        raised = self.raised_threshold is not None
        return self.threshold if raised else self._threshold_for(fold, self.fa_per_hour)

    def _miss_rate(self, threshold_of: Callable[[FineTuneResult], float]) -> float | None:
        missed = sum(int((self._left_out(f)[1] < threshold_of(f)).sum()) for f in self.folds)
        return round(missed / self.measured, 4) if self.measured else None

    @property
    def measured(self) -> int:
        """The number of examples of the keyword that were left out of a fold."""
        return sum(len(self._left_out(fold)[0]) for fold in self.folds)

    def alarms(self) -> list[Alarm]:
        """Return the false alarms of the exported network, highest first; at least a few peaks."""
        found = self.final.alarms[self.keyword]
        return [a for i, a in enumerate(found) if a.score >= self.threshold or i < _EXAMPLES]

    def _left_out(self, fold: FineTuneResult) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the indices and the scores of the keyword's examples that a network was trained without."""
        examples = self.training_set.measured
        own = np.array([examples[i].text == self.keyword for i in fold.left_out], bool)
        return np.array(fold.left_out, int)[own], fold.left_out_scores[own]

    def _threshold_for(self, result: FineTuneResult, fa_per_hour: float) -> float:
        """Return the threshold for `fa_per_hour`, the mean over the conditions.

        No condition has more than `_HIGHEST_SHARE` times as many.
        """
        hours = self.training_set.held_out_hours
        of_conditions = [of_keyword[self.keyword] for of_keyword in result.peaks.values()]
        everywhere = np.concatenate(of_conditions)
        return max(
            threshold_for(everywhere, hours * len(of_conditions), fa_per_hour=fa_per_hour),
            *(
                threshold_for(peaks, hours, fa_per_hour=_HIGHEST_SHARE * fa_per_hour)
                for peaks in of_conditions
            ),
        )

    def metrics(self, *, alone: bool = True) -> tuple[Metric, ...]:
        """Return the metrics of the model file; with the keyword in their names unless it is `alone`."""
        kind = "recorded" if self.real_speech else "synthesized"
        suffix = "" if alone else f".{self.keyword}"
        elsewhere = ", ".join(f"{self.fa_per_hour_in(c):.1f} in {c}" for c in self.final.peaks if c != CLEAN)
        false_alarms = Metric(
            f"false_alarms_per_hour{suffix}",
            round(self.fa_per_hour_in(CLEAN), 4),
            f"false alarms per hour of clean held-out {kind} speech "
            f"({rate_text(self.alarms_in(CLEAN), self.training_set.held_out_hours)}, 95% interval; "
            f"{elsewhere}); "
            + (
                "the threshold was chosen on the same speech"
                if self.raised_threshold is None
                else "the threshold was raised, because false alarms in people's speech could not be counted"
            ),
        )
        miss_rate = self.miss_rate
        if miss_rate is None:
            return (false_alarms,)
        count, s = self.measured, "" if self.measured == 1 else "s"
        left_out = (
            f"in {len(self.folds)}-fold cross-validation"
            if len(self.folds) > 1
            else "that the measured network was trained without"
        )
        what = (
            f"{count} recording{s} {left_out} (other recordings of the same people may be in the training)"
            if self.training_set.recordings
            else f"{count} utterance{s} of the keyword in synthetic voices that were trained on with other "
            "words only (people are missed more often)"
        )
        at = (
            f"thresholds for {self.fa_per_hour:g} false alarms per hour"
            if self.raised_threshold is None
            else "the threshold of the model, which was raised for want of recorded speech until "
            f"{_MISSES_WITHOUT_REAL_SPEECH:.0%} of them are missed"
        )
        low, high = wilson_interval(round(miss_rate * count), count)
        description = f"miss rate on {what} (95% interval {low:.1%} to {high:.1%}), at {at}"
        return Metric(f"missed{suffix}", miss_rate, description), false_alarms

    def document(self) -> dict[str, Any]:
        """Return everything that was measured, as a JSON document."""
        # The networks of the folds have different thresholds, so examples are compared by their margins.
        margins: list[tuple[float, int]] = []
        for fold in self.folds:
            threshold = log_odds(self._own_threshold(fold))
            indices, scores = self._left_out(fold)
            margins += zip((log_odds(scores) - threshold).tolist(), indices.tolist(), strict=True)
        training_set = self.training_set
        return {
            "keyword": self.keyword,
            "threshold": self.threshold,
            "fa_per_hour": self.fa_per_hour,
            "alarms_per_hour": round(self.fa_per_hour_in(CLEAN), 4),
            "alarms_per_hour_in": {c: round(self.fa_per_hour_in(c), 4) for c in self.final.peaks},
            "alarms_in": {c: self.alarms_in(c) for c in self.final.peaks},
            "threshold_was_raised": self.raised_threshold is not None,
            "missed": self.miss_rate,
            "missed_at": {f"{rate:g}": self.miss_rate_at(rate) for rate in _STATED_FA_PER_HOUR},
            "curve": [[r, self.miss_rate_at(r)] for r in np.geomspace(0.05, 20, 40).round(3).tolist()],
            "checks": len(self.folds),
            "measured": self.measured,
            "measured_on": "recordings" if training_set.recordings else "synthetic voices",
            "recordings": sum(r.text == self.keyword for r in training_set.recordings),
            "left_out": [{"file": r.path.name, "why": r.reason} for r in self.left_out],
            "speech": {
                "recorded": self.real_speech,
                "hours": round(hours(training_set.speech), 3),
                "held_out_hours": round(training_set.held_out_hours, 3),
            },
            "synthesized": {
                "keyword": sum(r.text == self.keyword for r in training_set.synthesized),
                "confusables": len(training_set.confusables),
            },
            "takes": [
                {"file": self.files[i].name, "index": i, "margin": round(margin, 2)}
                for margin, i in sorted(margins)
            ],
        }
