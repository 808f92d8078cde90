"""The metadata of a keyword's model, before its threshold and its accuracy are known."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from earmark_spotter.metadata import (
    DetectorInfo,
    KeywordInfo,
    ModelMetadata,
    TrainingInfo,
    TrainingSource,
)

from earmark_training.data.vocabulary import labels_for
from earmark_training.model.code_commit import code_commit

if TYPE_CHECKING:
    from earmark_training.model.network import Shape


def initial_metadata(
    keyword: str,
    *,
    name: str | None,
    version: str,
    base: ModelMetadata,
    shape: Shape,
    real_speech: bool,
    synthesized: bool,
) -> ModelMetadata:
    """Return the metadata of a model for one keyword that is fine-tuned from `base`.

    `real_speech` and `synthesized` say whether recorded and synthesized speech is used for training. Without
    a `name`, the model is named after the keyword.
    """
    sources = [
        *base.training.sources,
        TrainingSource(
            f"recordings of {keyword!r}", "as granted by the speakers", "the author of this model"
        ),
    ]
    if real_speech:
        sources.append(
            TrainingSource(
                "speech without the keyword", "as granted by its authors", "the author of this model"
            )
        )
    if synthesized:
        sources.append(
            TrainingSource("synthesized speech", "free", "eSpeak NG, Flite and Festival, if installed")
        )
    return ModelMetadata(
        name=name or _name_of(keyword),
        version=version,
        labels=labels_for((keyword,)),
        keywords={keyword: KeywordInfo(0.5, refractory_ms=500, end_lag_ms=0, duration_ms=600)},
        sample_rate_hz=shape.sample_rate_hz,
        step_samples=shape.frame_samples,
        frame_samples=shape.frame_samples,
        receptive_field_samples=shape.receptive_field_samples,
        detector=DetectorInfo(base.detector.hold_ms, base.detector.separation_ms),
        metrics=(),
        training=TrainingInfo(tuple(sources), code_commit()),
        gate=base.gate,
    )


def _name_of(keyword: str) -> str:
    """Return a model name for a keyword: its letters and digits, with dashes for the rest."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", keyword).strip("-._") or "keyword"
