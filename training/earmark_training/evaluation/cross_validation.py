"""Cross-validation of the thresholds: chosen on half of the speakers, measured on the other half."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from earmark_spotter import final_scores
from earmark_spotter.metadata import Metric

from earmark_training.data.corpus import hours
from earmark_training.evaluation.detections import detect, false_alarms
from earmark_training.evaluation.operating_point import (
    best_thresholds,
    collect_validation_peaks,
    score_noises,
    with_thresholds,
)
from earmark_training.evaluation.streams import make_streams, match_detections

if TYPE_CHECKING:
    from collections.abc import Sequence

    from earmark_spotter import SpotterModel

    from earmark_training.data.corpus import Corpus, Recording


def cross_validate(
    model: SpotterModel, corpus: Corpus, seed: int, fa_per_hour: float
) -> tuple[list[Metric], dict[str, Any]]:
    """Choose thresholds on half of the speakers and measure them on the other half, both ways.

    Return metrics and details: an estimate of what the model's thresholds do with unknown speakers. It is
    slightly pessimistic, since each choice is made on half of the speech. Both are empty if there are
    fewer than two speakers of clips or of speech.
    """
    meta = model.metadata
    spoken: Counter[str] = Counter()
    detected: Counter[str] = Counter()
    alarms, length = 0, 0.0
    halves = [[_half(corpus.select(kind, "validation"), i) for kind in ("clip", "speech")] for i in (0, 1)]
    if not all(part for half in halves for part in half):
        return [], {}
    collected = [collect_validation_peaks(model, corpus, clips, speech) for clips, speech in halves]
    noises = score_noises(model, corpus)
    for chosen_on, measured_on in ((0, 1), (1, 0)):
        tuned = with_thresholds(meta, best_thresholds(meta, *collected[chosen_on], fa_per_hour, noises))
        for snr_db, level in ((None, "clean"), (10.0, "10db")):
            streams = make_streams(corpus, halves[measured_on][0], snr_db=snr_db, seed=seed)
            detections = [detect(tuned, final_scores(model, s.samples)) for s in streams]
            matched = match_detections(streams, detections, meta.keyword_names)
            spoken[level] += matched.spoken.total()
            detected[level] += matched.detected.total()
        utterances = collected[measured_on][1]
        alarms += false_alarms(tuned, utterances).total()
        length += hours(utterances)
    recall = {level: round(detected[level] / max(1, spoken[level]), 4) for level in spoken}
    condition = f"with thresholds for {fa_per_hour:g} false alarms per hour, chosen on other speakers"
    metrics = [
        Metric(f"crossvalidated_found_{level}", value, f"stream_found_{level} {condition}")
        for level, value in recall.items()
    ]
    metrics.append(
        Metric(
            "crossvalidated_false_alarms_per_hour",
            alarms / length,
            f"false alarms per hour of read speech, the mean over the conditions, {condition}",
        )
    )
    return metrics, {
        "fa_per_hour_asked": fa_per_hour,
        "alarms": alarms,
        "hours": round(length, 3),
        "per_hour": round(alarms / length, 3),
        **{f"recall_{level}": value for level, value in recall.items()},
    }


def _half(recordings: Sequence[Recording], which: int) -> list[Recording]:
    """Return the recordings of every second speaker, starting with the first (0) or the second (1)."""
    speakers = {s: i % 2 for i, s in enumerate(sorted({r.speaker for r in recordings}))}
    return [r for r in recordings if speakers[r.speaker] == which]
