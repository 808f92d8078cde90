"""Export: write the model file of a trained network, with chosen thresholds and measured accuracy."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from earmark_audio.energy_gate import GateSettings
from earmark_audio.progress import SILENT, Progress
from earmark_spotter.metadata import (
    DetectorInfo,
    KeywordInfo,
    ModelMetadata,
    TrainingInfo,
    TrainingSource,
)

from earmark_training.evaluation.evaluate import evaluate
from earmark_training.evaluation.evaluation_set import from_corpus
from earmark_training.evaluation.offsets import measure_offsets
from earmark_training.evaluation.operating_point import choose_thresholds
from earmark_training.evaluation.scoring_progress import (
    ScoringProgress,
    hours_to_choose_thresholds,
    hours_to_measure_offsets,
)
from earmark_training.model.onnx_file import check_streaming, pack, to_onnx

if TYPE_CHECKING:
    from pathlib import Path

    from earmark_spotter import SpotterModel

    from earmark_training.data.corpus import Corpus
    from earmark_training.model.checkpoint import TrainedNetwork

_SEED, _CHECKED_CLIPS = 3, 60
_OFFSETS, _THRESHOLDS = "places of the words", "thresholds"

_SOURCES = (
    TrainingSource(
        "Google Speech Commands v0.01 and v0.02",
        "CC BY 4.0",
        "Pete Warden, Speech Commands: A Dataset for Limited-Vocabulary Speech Recognition, 2018",
    ),
    TrainingSource(
        "LibriSpeech dev-clean, train-clean-5, and speakers 26 and 27 of train-clean-100",
        "CC BY 4.0",
        "Vassil Panayotov, Guoguo Chen, Daniel Povey, Sanjeev Khudanpur, LibriSpeech, ICASSP 2015",
    ),
    TrainingSource(
        "Picovoice speech-to-intent benchmark",
        "Apache-2.0",
        "Picovoice Inc., commands of more than 50 crowd-sourced speakers",
    ),
    TrainingSource(
        "ESC-10, noises",
        "CC BY 3.0",
        "Karol J. Piczak, ESC: Dataset for Environmental Sound Classification, ACM Multimedia 2015",
    ),
    TrainingSource(
        "music and sounds of Debian packages of games and desktops",
        "free licences, stated in the packages",
        "the authors named in the packages",
    ),
    TrainingSource(
        "words that resemble keywords, spoken by the voices of Kokoro-82M",
        "Apache-2.0",
        "hexgrad, Kokoro-82M",
    ),
)


def export_model(
    trained: TrainedNetwork,
    corpus: Corpus,
    out: Path,
    *,
    name: str,
    version: str,
    fa_per_hour: float,
    progress: Progress = SILENT,
) -> SpotterModel:
    """Write the model file `out` and its metrics beside it, and return the model.

    The graph is verified, word offsets are measured, thresholds are chosen for `fa_per_hour`, and the result
    is evaluated, all on the validation split of the corpus. Raises ExportError, and writes nothing, if
    streamed scores differ from torch's by more than TOLERANCE.
    """
    network = trained.network.folded()
    graph = to_onnx(network)
    state = network.silent_state().numpy()
    metadata = _initial_metadata(trained, name, version)
    model = pack(graph, state, metadata)
    clips = corpus.select("clip", "validation")
    chosen = np.random.default_rng(_SEED).integers(len(clips), size=_CHECKED_CLIPS)
    check_streaming(network, model, [corpus.samples(clips[i]) for i in chosen])
    expected_hours = {
        _OFFSETS: hours_to_measure_offsets(corpus),
        _THRESHOLDS: hours_to_choose_thresholds(corpus),
    }
    scoring = ScoringProgress(model, progress, expected_hours)
    with scoring.phase(_OFFSETS):
        model = pack(graph, state, measure_offsets(scoring.model, corpus))
    scoring = ScoringProgress(model, progress, expected_hours)
    with scoring.phase(_THRESHOLDS):
        metadata = choose_thresholds(scoring.model, corpus, fa_per_hour=fa_per_hour)
    metrics, document = evaluate(
        pack(graph, state, metadata), from_corpus(corpus), fa_per_hour=fa_per_hour, progress=progress
    )
    metadata = replace(metadata, metrics=tuple(replace(m, value=round(m.value, 4)) for m in metrics))
    model = pack(graph, state, metadata, out)
    document["sha256"] = model.sha256
    out.with_suffix(".metrics.json").write_text(json.dumps(document, indent=1) + "\n")
    return model


def _initial_metadata(trained: TrainedNetwork, name: str, version: str) -> ModelMetadata:
    """Return the metadata before thresholds, word offsets and metrics are known."""
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
        detector=DetectorInfo(hold_ms=160, separation_ms=300, smoothing_frames=shape.smoothing_frames),
        metrics=(),
        training=TrainingInfo(_SOURCES, trained.commit),
        gate=GateSettings(),
    )
