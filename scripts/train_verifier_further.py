#!/usr/bin/env python
"""Train the verifier's graph on audio of a model further, for all keywords of the model together.

    python scripts/train_verifier_further.py MODEL CORPUS OUT [--passes 5] [--examples 512000]

MODEL is of `earmark-train verifier` or of scripts/add_keywords.py, CORPUS a prepared corpus.

1. The windows are the proposals in new passes over the training split, in all surroundings.
2. The training begins with the graph of MODEL. Its state is kept in OUT with the suffix `.checkpoint`, and
   the same command continues from there.
3. The weights beside the score before it, of this graph and of the one on features, are fitted on the
   proposals in a pass over the validation split.

OUT has the thresholds of MODEL: `earmark-train thresholds` chooses them.
"""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime
import torch
from earmark_audio.progress import Progress
from earmark_spotter import SpotterModel
from earmark_spotter.verifier import ENCODED_VERIFIER_KEY, VERIFIER_KEY
from earmark_training.data.corpus import Corpus
from earmark_training.model.encoded_verifier import fused, log_odds_of, log_odds_so_far
from earmark_training.model.onnx_file import pack, verifier_graphs
from earmark_training.verifier.network import FRAMES, first_log_odds, from_onnx, to_onnx
from earmark_training.verifier.proposals import Source, collect
from earmark_training.verifier.train import fit_fusion, fitted_fusion, train
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from earmark_training.verifier.network import VerifierNetwork
    from earmark_training.verifier.proposals import Proposals
    from torch import Tensor

TRAINING_SEED, VALIDATION_SEED, WINDOWS_SEED, SEED = 1, 2, 5, 7
WINDOWS = 2000
"""The windows whose mean and variance the batch normalization begins with."""
FUSION_THRESHOLD = 0.05
"""The fusion of the graph on features is fitted on the proposals whose score so far is at least this."""
BATCH = 64


def main() -> None:
    """Train the graph and write the model."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name in ("model", "corpus", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--passes", type=int, default=5)
    parser.add_argument("--examples", type=int, default=512_000)
    args = parser.parse_args()
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    torch.set_num_threads(1)
    corpus, model, graph = Corpus(args.corpus), SpotterModel.load(args.model), onnx.load(args.model)
    graphs = verifier_graphs(graph)
    unverified = pack(graph, model.initial_state, replace(model.metadata, verifier=None))
    with Progress() as progress:
        found = collect(
            unverified, corpus, "training", TRAINING_SEED,
            passes=args.passes, with_features=False, progress=progress,
        )  # fmt: skip
        rng, count = np.random.default_rng(WINDOWS_SEED), len(found.mel)
        chosen = np.sort(rng.choice(count, min(WINDOWS, count), replace=False))
        start = from_onnx(
            graphs[VERIFIER_KEY], torch.from_numpy(found.mel[chosen, -FRAMES:].astype(np.float32))
        )
        checkpoint = args.out.with_suffix(".checkpoint")
        keywords = len(model.metadata.keywords)
        network = train(
            found, keywords, args.examples,
            start=start, seed=SEED, checkpoint=checkpoint, progress=progress,
        )  # fmt: skip
        del found
        validation = collect(unverified, corpus, "validation", VALIDATION_SEED, progress=progress)
        fit_fusion(network, validation)
    on_audio = to_onnx(network)
    so_far = final_scores(network, validation)
    encoded = with_fusion(graphs[ENCODED_VERIFIER_KEY], validation, so_far)
    model = pack(
        graph, model.initial_state, model.metadata, args.out, verifier=on_audio, encoded_verifier=encoded
    )
    checkpoint.unlink(missing_ok=True)
    print(f"{args.out}: SHA-256 {model.sha256}")


@torch.no_grad()
def final_scores(network: VerifierNetwork, found: Proposals) -> Tensor:
    """Return the scores of the graph on audio, (N)."""
    parts = np.array_split(np.arange(len(found.label)), -(-len(found.label) // BATCH))
    logits = [network.logits(torch.from_numpy(found.mel[i, -FRAMES:].astype(np.float32))) for i in parts]
    odds = log_odds_of(torch.cat(logits), torch.from_numpy(found.proposed - 1))
    return fused(network.fusion, first_log_odds(torch.from_numpy(found.score)), odds)


def with_fusion(graph: bytes, found: Proposals, so_far: Tensor) -> bytes:
    """Return the graph on features with other weights of the score so far and of its own log-odds.

    A graph of scripts/add_keywords.py has two parts: `old_`, and `new_` for the classes from `first` on.
    """
    model = onnx.load_from_string(graph)
    values = {w.name: w for w in model.graph.initializer}
    parts = [part for part in ("", "old_", "new_") if f"{part}select" in values]
    first = int(numpy_helper.to_array(values["first"])) if "first" in values else None
    probed = onnx.load_from_string(graph)
    for part in parts:
        product = next(n for n in model.graph.node if n.op_type == "Mul" and f"{part}select_1" in n.input)
        (output,) = (name for name in product.input if name != f"{part}select_1")
        probed.graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(probed.SerializeToString())
    names = [output.name for output in session.get_outputs()[1:]]
    indices = np.array_split(np.arange(len(found.label)), -(-len(found.label) // BATCH))
    inputs = [
        {
            "features": found.features[i].astype(np.float32),
            "class": found.proposed[i],
            "score": so_far[i].numpy(),
        }
        for i in indices
    ]
    all_odds = [np.concatenate(of) for of in zip(*(session.run(names, one) for one in inputs), strict=True)]
    peaks = (found.source != Source.RANDOM) & (so_far.numpy() >= FUSION_THRESHOLD)
    for part, odds in zip(parts, all_odds, strict=True):
        of_part = np.ones(len(odds), bool) if first is None else (found.proposed >= first) == (part == "new_")
        chosen = np.flatnonzero(peaks & of_part)
        correct = torch.from_numpy((found.label == found.proposed)[chosen]).float()
        fusion = fitted_fusion(log_odds_so_far(so_far[chosen]), torch.from_numpy(odds[chosen]), correct)
        logging.info("fusion of %s: %s", part or "features", fusion.tolist())
        for constant, weight in zip(("select", "select_1", "select_2"), fusion, strict=True):
            values[part + constant].CopyFrom(numpy_helper.from_array(weight.numpy(), part + constant))
    return model.SerializeToString()


if __name__ == "__main__":
    main()
