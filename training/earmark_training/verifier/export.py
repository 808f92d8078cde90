"""Adding a verifier to a model file: training, fusion, thresholds and measured accuracy."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import onnx
from earmark_audio.progress import SILENT, Progress
from earmark_spotter import SpotterModel
from earmark_spotter.metadata import TrainingSource, VerifierInfo
from earmark_spotter.speech_encoder import bundled_speech_encoder
from earmark_spotter.verifier import VERIFIER_KEY

from earmark_training.errors import ExportError
from earmark_training.evaluation.export import write_calibrated
from earmark_training.model.checkpoint import write_state
from earmark_training.model.encoded_verifier import ENCODER_SOURCE
from earmark_training.model.encoded_verifier import to_onnx as encoded_to_onnx
from earmark_training.model.onnx_file import pack, verifier_graphs
from earmark_training.verifier.network import SAMPLE_RATE_HZ, load, to_onnx, window_samples
from earmark_training.verifier.proposals import collect
from earmark_training.verifier.train import fit_encoded_fusion, fit_fusion, train, train_encoded

if TYPE_CHECKING:
    from pathlib import Path

    from earmark_spotter.metadata import ModelMetadata

    from earmark_training.data.corpus import Corpus

PROPOSAL_THRESHOLD = 0.15
"""0.3 loses one point of recall for half of the proposals in speech; 0.05 wins one for 2.5 times as many."""

ENCODER_THRESHOLD = 0.4
"""85% of the proposals in speech without keywords have a lower score after the graph on audio."""

CERTAIN_SCORE, ENCODER_CERTAIN_SCORE = 0.997, 0.985
"""Three of four false alarms in clean speech had a first score between 0.99 and 0.997. For scores above 0.985
the encoder costs more than it gains."""

_FUSION_THRESHOLD = 0.05
"""The fusion is fitted on more proposals than those that the encoder sees."""

_TRAINING_SEED, _VALIDATION_SEED = 1, 2

_EMBEDDING_SOURCE = TrainingSource(
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
    encoded_steps: int,
    network_file: Path | None,
    fa_per_hour: float,
    progress: Progress = SILENT,
) -> SpotterModel:
    """Write a model file with a verifier and its metrics beside it, and return the model.

    Both graphs of the verifier are trained on the training split. A model that has the graph on audio keeps
    it, and gets the one on features of the speech encoder. On the validation split, each is fused with the
    score before it, the thresholds are chosen for `fa_per_hour`, and the result is evaluated. `network_file`:
    where the trained network on audio is kept; it is not trained again if the file is there, and a training
    that was interrupted continues from the checkpoint beside it. Raises ExportError for a model that has the
    graph on features already, or another sample rate, and RecipeError if `network_file` or the checkpoint is
    damaged.
    """
    model, graph = SpotterModel.load(model_file), onnx.load(model_file)
    meta, state = model.metadata, model.initial_state
    if (meta.verifier and meta.verifier.encoder_sha256) or meta.sample_rate_hz != SAMPLE_RATE_HZ:
        raise ExportError(
            f"{model_file} must be a model for {SAMPLE_RATE_HZ} Hz whose verifier needs no features"
        )
    trained = None
    if meta.verifier is None and network_file is not None and network_file.is_file():
        trained = load(network_file)
    found = collect(model, corpus, "training", _TRAINING_SEED, passes=passes, progress=progress)
    if meta.verifier is not None:
        verifier = verifier_graphs(graph)[VERIFIER_KEY]
    else:
        network = trained
        if network is None:
            checkpoint = network_file and network_file.with_suffix(".checkpoint")
            network = train(found, len(meta.keywords), examples, checkpoint=checkpoint, progress=progress)
            fit_fusion(network, collect(model, corpus, "validation", _VALIDATION_SEED, progress=progress))
            if network_file is not None:
                write_state(network_file, network.state_dict())
            if checkpoint is not None:
                checkpoint.unlink(missing_ok=True)
        verifier = to_onnx(network)
        sources = (*meta.training.sources, _EMBEDDING_SOURCE)
        meta = replace(
            meta,
            verifier=VerifierInfo(window_samples(), PROPOSAL_THRESHOLD, CERTAIN_SCORE),
            training=replace(meta.training, sources=sources),
        )
        model = pack(graph, state, meta, verifier=verifier)
    assert meta.verifier is not None
    encoded = train_encoded(found, len(meta.keywords), encoded_steps, progress=progress)
    validation = collect(model, corpus, "validation", _VALIDATION_SEED, progress=progress)
    fit_encoded_fusion(encoded, validation, _FUSION_THRESHOLD)
    encoded_verifier = encoded_to_onnx(encoded)
    meta = replace(
        meta,
        version=version or meta.version,
        verifier=replace(
            meta.verifier,
            proposal_threshold=PROPOSAL_THRESHOLD,
            encoder_sha256=bundled_speech_encoder().sha256,
            encoder_threshold=ENCODER_THRESHOLD,
            certain_score=CERTAIN_SCORE,
            encoder_certain_score=ENCODER_CERTAIN_SCORE,
        ),
        training=replace(meta.training, sources=(*meta.training.sources, ENCODER_SOURCE)),
    )

    def packed(metadata: ModelMetadata, out: Path | None = None) -> SpotterModel:
        return pack(graph, state, metadata, out, verifier=verifier, encoded_verifier=encoded_verifier)

    return write_calibrated(packed, meta, corpus, out, fa_per_hour=fa_per_hour, progress=progress)
