"""Export: write a model file, with chosen thresholds and measured accuracy."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx
from earmark_audio.energy_gate import GateSettings
from earmark_audio.progress import SILENT, Progress
from earmark_spotter import SpotterModel
from earmark_spotter.metadata import (
    DetectorInfo,
    KeywordInfo,
    ModelMetadata,
    TrainingInfo,
    TrainingSource,
)
from earmark_spotter.verifier import ENCODED_VERIFIER_KEY, VERIFIER_KEY

from earmark_training.data.corpus import SAMPLE_RATE_HZ
from earmark_training.errors import ExportError
from earmark_training.evaluation.evaluate import evaluate
from earmark_training.evaluation.evaluation_set import from_corpus
from earmark_training.evaluation.offsets import measure_offsets
from earmark_training.evaluation.operating_point import choose_thresholds
from earmark_training.evaluation.scoring_progress import (
    ScoringProgress,
    hours_to_choose_thresholds,
    hours_to_measure_offsets,
)
from earmark_training.model.onnx_file import check_streaming, pack, to_onnx, verifier_graphs
from earmark_training.output_files import replace_file

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from earmark_training.data.corpus import Corpus
    from earmark_training.model.checkpoint import TrainedNetwork

_SEED, _CHECKED_CLIPS = 3, 60
_OFFSETS, _THRESHOLDS = "places of the words", "thresholds"


def read_sources(path: Path) -> tuple[TrainingSource, ...]:
    """Return the data sets of a JSON file. Raises ExportError if it is not a list of them."""
    try:
        sources = json.loads(path.read_text())
        return tuple(TrainingSource(**{k: str(v) for k, v in one.items()}) for one in sources)
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise ExportError(
            f"{path}: {error}. It must be a list of data sets: "
            '[{"name": "...", "license": "...", "attribution": "..."}]'
        ) from error


def export_model(
    trained: TrainedNetwork,
    corpus: Corpus,
    out: Path,
    *,
    name: str,
    version: str,
    fa_per_hour: float,
    sources: Sequence[TrainingSource] = (),
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
    metadata = _initial_metadata(trained, name, version, sources)
    model = pack(graph, state, metadata)
    clips = corpus.select("clip", "validation")
    chosen = np.random.default_rng(_SEED).integers(len(clips), size=_CHECKED_CLIPS)
    check_streaming(network, model, [corpus.samples(clips[i]) for i in chosen])
    scoring = ScoringProgress(model, progress, {_OFFSETS: hours_to_measure_offsets(corpus)})
    with scoring.phase(_OFFSETS):
        model = pack(graph, state, measure_offsets(scoring.model, corpus))

    def packed(metadata: ModelMetadata, out: Path | None = None) -> SpotterModel:
        return pack(graph, state, metadata, out)

    return write_calibrated(packed, model.metadata, corpus, out, fa_per_hour=fa_per_hour, progress=progress)


def calibrate(
    model_file: Path,
    corpus: Corpus,
    out: Path,
    *,
    version: str | None,
    fa_per_hour: float,
    progress: Progress = SILENT,
) -> SpotterModel:
    """Write a copy of a model file with thresholds that are chosen again, and return its model.

    The thresholds are chosen, and the metrics measured, on the validation split of the corpus. Raises
    ExportError if the split has no clips of a keyword, or if the model has another sample rate.
    """
    model, graph = SpotterModel.load(model_file), onnx.load(model_file)
    if model.metadata.sample_rate_hz != SAMPLE_RATE_HZ:
        raise ExportError(f"{model_file} must be a model for {SAMPLE_RATE_HZ} Hz, which the corpus has")
    spoken = {clip.text for clip in corpus.select("clip", "validation")}
    if missing := [k for k in model.metadata.keyword_names if k not in spoken]:
        raise ExportError(f"{corpus.folder} has no clips for validation of: {', '.join(missing)}")
    graphs = verifier_graphs(graph)

    def packed(metadata: ModelMetadata, out: Path | None = None) -> SpotterModel:
        verifier, encoded_verifier = graphs.get(VERIFIER_KEY), graphs.get(ENCODED_VERIFIER_KEY)
        return pack(
            graph, model.initial_state, metadata, out, verifier=verifier, encoded_verifier=encoded_verifier
        )

    metadata = replace(model.metadata, version=version or model.metadata.version)
    return write_calibrated(packed, metadata, corpus, out, fa_per_hour=fa_per_hour, progress=progress)


def write_calibrated(
    packed: Callable[..., SpotterModel],
    metadata: ModelMetadata,
    corpus: Corpus,
    out: Path,
    *,
    fa_per_hour: float,
    progress: Progress,
) -> SpotterModel:
    """Choose the thresholds of a model, measure it, and write it to `out`, with its metrics beside it.

    packed: returns the model with the given metadata, and writes it if it gets a path.
    """
    expected_hours = {_THRESHOLDS: hours_to_choose_thresholds(corpus)}
    scoring = ScoringProgress(packed(metadata), progress, expected_hours)
    with scoring.phase(_THRESHOLDS):
        metadata = choose_thresholds(scoring.model, corpus, fa_per_hour=fa_per_hour)
    metrics, document = evaluate(
        packed(metadata), from_corpus(corpus), fa_per_hour=fa_per_hour, progress=progress
    )
    metadata = replace(metadata, metrics=tuple(replace(m, value=round(m.value, 4)) for m in metrics))
    model = packed(metadata, out)
    document["sha256"] = model.sha256
    replace_file(out.with_suffix(".metrics.json"), (json.dumps(document, indent=1) + "\n").encode())
    return model


def _initial_metadata(
    trained: TrainedNetwork, name: str, version: str, sources: Sequence[TrainingSource]
) -> ModelMetadata:
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
        training=TrainingInfo(tuple(sources), trained.commit),
        gate=GateSettings(),
    )
