"""Cross-validation of the thresholds: chosen on half of the speakers, measured on the other half."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from earmark_spotter import score_recording
from earmark_spotter.metadata import Metric

from earmark_training.data.corpus import hours
from earmark_training.evaluation.operating_point import (
    best_thresholds,
    detect,
    false_alarms,
    observe,
    with_thresholds,
)
from earmark_training.evaluation.streams import judge, make_streams

if TYPE_CHECKING:
    from collections.abc import Sequence

    from earmark_spotter import SpotterModel

    from earmark_training.data.corpus import Corpus, Recording


def cross_validate(
    model: SpotterModel, corpus: Corpus, seed: int, fa_per_hour: float
) -> tuple[list[Metric], dict[str, Any]]:
    """Choose thresholds on half of the speakers and measure on the other half, both ways.

    What the thresholds of the whole would do among strangers; a little worse, for half the speech chose them.
    """
    meta = model.metadata
    spoken: Counter[str] = Counter()
    found: Counter[str] = Counter()
    alarms, length = 0, 0.0
    halves = [[_half(corpus.select(kind, "validation"), i) for kind in ("clip", "speech")] for i in (0, 1)]
    if not all(part for half in halves for part in half):
        return [], {}
    observed = [observe(model, corpus, clips, speech) for clips, speech in halves]
    for mine, other in ((0, 1), (1, 0)):
        tuned = with_thresholds(meta, best_thresholds(meta, *observed[mine], fa_per_hour))
        for snr, level in ((None, "clean"), (10.0, "10db")):
            streams = make_streams(corpus, halves[other][0], snr_db=snr, seed=seed)
            heard = [detect(tuned, score_recording(model, s.samples)) for s in streams]
            verdict = judge(streams, heard, meta.keyword_names)
            spoken[level] += verdict.spoken.total()
            found[level] += verdict.found.total()
        utterances = observed[other][1]
        alarms += false_alarms(tuned, utterances).total()
        length += hours(utterances)
    shares = {f"found_{level}": round(found[level] / max(1, spoken[level]), 4) for level in spoken}
    how = f"thresholds for {fa_per_hour:g} false alarms an hour were chosen on other speakers"
    figures = [
        Metric(f"crossvalidated_{name}", value, f"as stream_{name}, but {how}")
        for name, value in shares.items()
    ]
    figures.append(
        Metric(
            "crossvalidated_false_alarms_per_hour", alarms / length, f"as false_alarms_per_hour, but {how}"
        )
    )
    return figures, {
        "fa_per_hour_asked": fa_per_hour,
        "alarms": alarms,
        "hours": round(length, 3),
        "per_hour": round(alarms / length, 3),
        **shares,
    }


def _half(recordings: Sequence[Recording], which: int) -> list[Recording]:
    """Return every other speaker's recordings."""
    speakers = {s: i % 2 for i, s in enumerate(sorted({r.speaker for r in recordings}))}
    return [r for r in recordings if speakers[r.speaker] == which]
