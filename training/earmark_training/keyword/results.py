"""The results of fine-tuning: the threshold, and the metrics of the report and of the model file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from earmark_spotter.metadata import Metric

from earmark_training.data.corpus import hours
from earmark_training.evaluation.log_odds import log_odds
from earmark_training.evaluation.operating_point import HIGHEST_THRESHOLD, fa_per_hour_at, threshold_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from earmark_training.keyword.parallel_training import FineTuneResult
    from earmark_training.keyword.recordings import KeywordRecording, RejectedRecording
    from earmark_training.keyword.training_set import TrainingSet

_MISSES_WITHOUT_REAL_SPEECH = 0.03
_STATED_FA_PER_HOUR = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


@dataclass(frozen=True, slots=True)
class KeywordResults:
    """The exported network, and those of cross-validation, each trained without a fold of the recordings."""

    keyword: str
    fa_per_hour: float
    recordings: Sequence[KeywordRecording]
    left_out: Sequence[RejectedRecording]
    training_set: TrainingSet
    real_speech: bool
    """Whether the speech was recorded, not synthesized."""
    final: FineTuneResult
    folds: Sequence[FineTuneResult]

    @property
    def threshold(self) -> float:
        """The threshold for `fa_per_hour`; higher if the speech is synthesized.

        Synthesized speech has too few false alarms. So the threshold is raised, if possible, until 3% of the
        recordings are missed by the networks that were trained without them.
        """
        threshold = self._threshold_for(self.final, self.fa_per_hour)
        if self.folds and not self.real_speech:
            scores = np.concatenate([fold.left_out_scores for fold in self.folds])
            threshold = max(threshold, float(np.quantile(scores, _MISSES_WITHOUT_REAL_SPEECH)))
        return round(min(threshold, HIGHEST_THRESHOLD), 4)

    @property
    def measured_fa_per_hour(self) -> float:
        """False alarms per hour of the exported network in the held-out speech, at its threshold."""
        return fa_per_hour_at(self.threshold, self.final.peaks, self.training_set.held_out_hours)

    def miss_rate_at(self, fa_per_hour: float) -> float | None:
        """Return the cross-validated miss rate at thresholds for `fa_per_hour`; None without folds.

        Each network's threshold is chosen on the held-out speech, and applied to the recordings that the
        network was trained without.
        """
        if not self.folds:
            return None
        missed = [(f.left_out_scores < self._threshold_for(f, fa_per_hour)).sum() for f in self.folds]
        return round(float(sum(missed)) / len(self.recordings), 4)

    def _threshold_for(self, result: FineTuneResult, fa_per_hour: float) -> float:
        return threshold_for(result.peaks, self.training_set.held_out_hours, fa_per_hour=fa_per_hour)

    def metrics(self) -> tuple[Metric, ...]:
        """Return the metrics of the model file."""
        kind = "recorded" if self.real_speech else "synthesized"
        false_alarms = Metric(
            "false_alarms_per_hour",
            round(self.measured_fa_per_hour, 4),
            f"false alarms per hour in {self.training_set.held_out_hours:.1f} h of held-out {kind} speech; "
            "the threshold was chosen on the same speech",
        )
        miss_rate = self.miss_rate_at(self.fa_per_hour)
        if miss_rate is None:
            return (false_alarms,)
        description = (
            f"miss rate on {len(self.recordings)} recordings in {len(self.folds)}-fold cross-validation, at "
            f"thresholds for {self.fa_per_hour:g} false alarms per hour"
        )
        return Metric("missed", miss_rate, description), false_alarms

    def document(self) -> dict[str, Any]:
        """Return everything that was measured, as a JSON document."""
        # The networks of the folds have different thresholds, so recordings are compared by their margins.
        margins = np.zeros(len(self.recordings))
        for fold in self.folds:
            threshold = self._threshold_for(fold, self.fa_per_hour)
            margins[list(fold.left_out)] = log_odds(fold.left_out_scores) - log_odds(threshold)
        order = np.argsort(margins, kind="stable").tolist()
        margins = margins.round(2)
        training_set = self.training_set
        return {
            "keyword": self.keyword,
            "threshold": self.threshold,
            "fa_per_hour": self.fa_per_hour,
            "alarms_per_hour": round(self.measured_fa_per_hour, 4),
            "missed": self.miss_rate_at(self.fa_per_hour),
            "missed_at": {f"{rate:g}": self.miss_rate_at(rate) for rate in _STATED_FA_PER_HOUR},
            "curve": [[r, self.miss_rate_at(r)] for r in np.geomspace(0.05, 20, 40).round(3).tolist()],
            "checks": len(self.folds),
            "recordings": len(self.recordings),
            "left_out": [{"file": r.path.name, "why": r.reason} for r in self.left_out],
            "speech": {
                "recorded": self.real_speech,
                "hours": round(hours(training_set.speech), 3),
                "held_out_hours": round(training_set.held_out_hours, 3),
            },
            "synthesized": {
                "keyword": len(training_set.synthesized),
                "lookalikes": len(training_set.confusables),
            },
            "takes": [
                {"file": self.recordings[i].path.name, "margin": round(float(margins[i]), 2)} for i in order
            ],
        }
