"""Adding a verifier to a model file: training, fusion, thresholds and measured accuracy."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import onnx
import torch
from earmark_audio.progress import SILENT, Progress
from earmark_spotter import SpotterModel
from earmark_spotter.metadata import TrainingSource, VerifierInfo

from earmark_training.errors import ExportError
from earmark_training.evaluation.evaluate import evaluate
from earmark_training.evaluation.evaluation_set import from_corpus
from earmark_training.evaluation.operating_point import choose_thresholds
from earmark_training.evaluation.scoring_progress import ScoringProgress, hours_to_choose_thresholds
from earmark_training.model.onnx_file import pack
from earmark_training.verifier.network import SAMPLE_RATE_HZ, load, to_onnx, window_samples
from earmark_training.verifier.proposals import collect
from earmark_training.verifier.train import fit_fusion, train

if TYPE_CHECKING:
    from pathlib import Path

    from earmark_training.data.corpus import Corpus

PROPOSAL_THRESHOLD = 0.3
"""A threshold of 0.1 has nearly the same recall, and twice as many proposals in clean speech."""

_TRAINING_SEED, _VALIDATION_SEED = 1, 2
_THRESHOLDS = "thresholds"

_SOURCE = TrainingSource(
    "the weights of Google's speech embedding, where the verifier starts",
    "Apache-2.0",
    "James Lin, Kevin Kilgour, Dominik Roblek, Matthew Sharifi, Training Keyword Spotters with Limited and "
    "Synthesized Speech Data, 2020",
)


def add_verifier(
    model_file: Path,
    corpus: Corpus,
    out: Path,
    *,
    version: str | None,
    passes: int,
    examples: int,
    network_file: Path | None,
    fa_per_hour: float,
    progress: Progress = SILENT,
) -> SpotterModel:
    """Write a model file with a verifier and its metrics beside it, and return the model.

    The verifier is trained on the training split. On the validation split, it is fused with the first
    network, the thresholds are chosen for `fa_per_hour`, and the result is evaluated. `network_file`: where
    the trained verifier is kept; it is not trained again if the file is there, and a training that was
    interrupted continues from the checkpoint beside it. Raises ExportError for a model that has a verifier
    already, or another sample rate.
    """
    model, graph = SpotterModel.load(model_file), onnx.load(model_file)
    meta = model.metadata
    if meta.verifier is not None or meta.sample_rate_hz != SAMPLE_RATE_HZ:
        raise ExportError(f"{model_file} must be a model for {SAMPLE_RATE_HZ} Hz without a verifier")
    if network_file is not None and network_file.is_file():
        network = load(network_file)
    else:
        found = collect(model, corpus, "training", _TRAINING_SEED, passes=passes, progress=progress)
        checkpoint = network_file and network_file.with_suffix(".checkpoint")
        network = train(found, len(meta.keywords), examples, checkpoint=checkpoint, progress=progress)
        fit_fusion(network, collect(model, corpus, "validation", _VALIDATION_SEED, progress=progress))
        if network_file is not None:
            torch.save(network.state_dict(), network_file)
        if checkpoint is not None:
            checkpoint.unlink(missing_ok=True)
    verifier, state = to_onnx(network), model.initial_state
    meta = replace(
        meta,
        version=version or meta.version,
        verifier=VerifierInfo(window_samples(), PROPOSAL_THRESHOLD),
        training=replace(meta.training, sources=(*meta.training.sources, _SOURCE)),
    )
    unscored = pack(graph, state, meta, verifier=verifier)
    scoring = ScoringProgress(unscored, progress, {_THRESHOLDS: hours_to_choose_thresholds(corpus)})
    with scoring.phase(_THRESHOLDS):
        meta = choose_thresholds(scoring.model, corpus, fa_per_hour=fa_per_hour)
    model = pack(graph, state, meta, verifier=verifier)
    metrics, document = evaluate(model, from_corpus(corpus), fa_per_hour=fa_per_hour, progress=progress)
    meta = replace(meta, metrics=tuple(replace(m, value=round(m.value, 4)) for m in metrics))
    model = pack(graph, state, meta, out, verifier=verifier)
    document["sha256"] = model.sha256
    out.with_suffix(".metrics.json").write_text(json.dumps(document, indent=1) + "\n")
    return model
