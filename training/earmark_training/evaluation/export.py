"""Export: a trained network becomes a model file, with thresholds chosen and its accuracy measured."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from earmark_spotter.metadata import (
    DetectorInfo,
    KeywordInfo,
    ModelMetadata,
    TrainingInfo,
    TrainingSource,
)

from earmark_training.evaluation.evaluate import evaluate
from earmark_training.evaluation.operating_point import choose_thresholds, measure_offsets
from earmark_training.evaluation.test_material import prepared
from earmark_training.model.onnx_file import check_streaming, pack, to_onnx

if TYPE_CHECKING:
    from pathlib import Path

    from earmark_spotter import SpotterModel

    from earmark_training.data.corpus import Corpus
    from earmark_training.model.train import Trained

_SEED, _CHECKED_CLIPS = 3, 60

_SOURCES = (
    TrainingSource(
        "Google Speech Commands v0.01 and v0.02",
        "CC BY 4.0",
        "Pete Warden, Speech Commands: A Dataset for Limited-Vocabulary Speech Recognition, 2018",
    ),
    TrainingSource(
        "LibriSpeech dev-clean and train-clean-5",
        "CC BY 4.0",
        "Vassil Panayotov, Guoguo Chen, Daniel Povey, Sanjeev Khudanpur, LibriSpeech, ICASSP 2015",
    ),
)


def export_model(
    trained: Trained,
    corpus: Corpus,
    out: Path,
    *,
    name: str,
    version: str,
    fa_per_hour: float,
) -> SpotterModel:
    """Write the model file: graph, checked; thresholds and offsets, calibrated; figures, measured.

    Raises ExportError, and writes nothing, where streamed scores differ from torch's by more than TOLERANCE.
    """
    network = trained.network.folded()
    graph = to_onnx(network)
    state = network.silent_state().numpy()
    metadata = _provisional(trained, name, version)
    model = pack(graph, state, metadata)
    clips = corpus.select("clip", "validation")
    chosen = np.random.default_rng(_SEED).integers(len(clips), size=_CHECKED_CLIPS)
    check_streaming(network, model, [corpus.samples(clips[i]) for i in chosen])
    model = pack(graph, state, measure_offsets(model, corpus))
    metadata = choose_thresholds(model, corpus, fa_per_hour=fa_per_hour)
    figures, document = evaluate(pack(graph, state, metadata), prepared(corpus), fa_per_hour=fa_per_hour)
    metadata = replace(metadata, metrics=tuple(replace(f, value=round(f.value, 4)) for f in figures))
    model = pack(graph, state, metadata, out)
    document["sha256"] = model.sha256
    out.with_suffix(".metrics.json").write_text(json.dumps(document, indent=1) + "\n")
    return model


def _provisional(trained: Trained, name: str, version: str) -> ModelMetadata:
    shape, recipe = trained.network.shape, trained.recipe
    return ModelMetadata(
        name=name,
        version=version,
        labels=recipe.labels,
        keywords={
            k: KeywordInfo(0.5, refractory_ms=500, end_lag_ms=0, duration_ms=400) for k in recipe.keywords
        },
        sample_rate_hz=shape.sample_rate_hz,
        step_samples=shape.frame_samples,
        frame_samples=shape.frame_samples,
        receptive_field_samples=shape.receptive_field_samples,
        detector=DetectorInfo(hold_ms=160, separation_ms=300),
        metrics=(),
        training=TrainingInfo(_SOURCES, trained.commit),
    )
