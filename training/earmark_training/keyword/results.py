"""What tuning came to: the threshold, and the figures of the report and the model file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from earmark_spotter.metadata import Metric

from earmark_training.data.corpus import hours
from earmark_training.evaluation.operating_point import logit
from earmark_training.keyword.threshold import alarms_per_hour_at, threshold_at

if TYPE_CHECKING:
    from collections.abc import Sequence

    from earmark_training.keyword.material import Material
    from earmark_training.keyword.parallel_training import Tuned
    from earmark_training.keyword.recordings import Rejected, Take

_UNPROVEN_MISSES = 0.03
_RATES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


@dataclass(frozen=True, slots=True)
class Results:
    """The tuned network, and the same tuning without a part of the recordings each, as checks."""

    keyword: str
    fa_per_hour: float
    takes: Sequence[Take]
    left_out: Sequence[Rejected]
    material: Material
    real_speech: bool
    """Whether the speech is of people, not of synthesizers."""
    final: Tuned
    checks: Sequence[Tuned]

    @property
    def threshold(self) -> float:
        """The threshold for the false alarms per hour; stricter where they come from no real speech.

        Then synthesizers say how often the model is fooled, which is too seldom: the threshold is put where
        few of the recordings that a model was not taught are missed, if that is higher.
        """
        threshold = threshold_at(self.final.peaks, self.material.held_out_hours, self.fa_per_hour)
        if self.checks and not self.real_speech:
            heard = np.concatenate([c.left_out_scores for c in self.checks])
            threshold = max(threshold, float(np.quantile(heard, _UNPROVEN_MISSES)))
        return round(min(threshold, 0.995), 4)

    @property
    def alarms_per_hour(self) -> float:
        """False alarms that the tuned network gives in the held-out speech, at its threshold."""
        return alarms_per_hour_at(self.final.peaks, self.material.held_out_hours, self.threshold)

    def missed_at(self, fa_per_hour: float) -> float | None:
        """Return the share of recordings missed by checks that were not taught them, at their thresholds.

        None where there are no checks.
        """
        if not self.checks:
            return None
        missed = [(c.left_out_scores < self._threshold_of(c, fa_per_hour)).sum() for c in self.checks]
        return round(float(sum(missed)) / len(self.takes), 4)

    def _threshold_of(self, check: Tuned, fa_per_hour: float) -> float:
        return threshold_at(check.peaks, self.material.held_out_hours, fa_per_hour)

    def metrics(self) -> tuple[Metric, ...]:
        """Return the figures that go into the model file."""
        where = "of people" if self.real_speech else "of synthesizers"
        alarms = Metric(
            "false_alarms_per_hour",
            round(self.alarms_per_hour, 4),
            f"per hour, in {self.material.held_out_hours:.1f} h of held-out speech {where}; the "
            "threshold was chosen on the same speech",
        )
        missed = self.missed_at(self.fa_per_hour)
        if missed is None:
            return (alarms,)
        description = (
            f"share of {len(self.takes)} recordings missed by models that were not taught them "
            f"({len(self.checks)}-fold), at the threshold for {self.fa_per_hour:g} false alarms per hour"
        )
        return Metric("missed", missed, description), alarms

    def document(self) -> dict[str, Any]:
        """Return everything that was measured."""
        # Recordings are scored by checks with thresholds of their own: compared by their margins.
        margins = np.zeros(len(self.takes))
        for check in self.checks:
            limit = self._threshold_of(check, self.fa_per_hour)
            margins[list(check.left_out)] = logit(check.left_out_scores) - logit(limit)
        order = np.argsort(margins, kind="stable").tolist()
        margins = margins.round(2)
        material = self.material
        return {
            "keyword": self.keyword,
            "threshold": self.threshold,
            "fa_per_hour": self.fa_per_hour,
            "alarms_per_hour": round(self.alarms_per_hour, 4),
            "missed": self.missed_at(self.fa_per_hour),
            "missed_at": {f"{rate:g}": self.missed_at(rate) for rate in _RATES},
            "curve": [[r, self.missed_at(r)] for r in np.geomspace(0.05, 20, 40).round(3).tolist()],
            "checks": len(self.checks),
            "recordings": len(self.takes),
            "left_out": [{"file": r.path.name, "why": r.reason} for r in self.left_out],
            "speech": {
                "recorded": self.real_speech,
                "hours": round(hours(material.speech), 3),
                "held_out_hours": round(material.held_out_hours, 3),
            },
            "synthesized": {"keyword": len(material.voices), "lookalikes": len(material.lookalikes)},
            "takes": [
                {"file": self.takes[i].path.name, "margin": round(float(margins[i]), 2)} for i in order
            ],
        }
