#!/usr/bin/env python
"""Train the verifier of a model further, for all keywords of the model together.

    python scripts/train_verifier_further.py MODEL CORPUS OUT [--passes 8] [--examples 640000]

MODEL is of `earmark-train verifier` or of scripts/add_keywords.py, CORPUS a prepared corpus.

1. The windows are the proposals in new passes over the training split, in all surroundings, and in its
   noises alone.
2. The graph on audio is trained further: it begins as that of MODEL. Its state is kept in OUT with the suffix
   `.checkpoint`, and the same command continues from there.
3. The graph on features of the speech encoder is trained from the start, on one more pass.
4. The weights beside the score before each graph are fitted on the proposals in a pass over the validation
   split.

OUT has the thresholds of MODEL: `earmark-train thresholds` chooses them.
"""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import torch
from earmark_audio.progress import Progress
from earmark_spotter import SpotterModel
from earmark_spotter.verifier import VERIFIER_KEY
from earmark_training.data.corpus import Corpus
from earmark_training.model import encoded_verifier
from earmark_training.model.encoded_verifier import fused, log_odds_of
from earmark_training.model.onnx_file import pack, verifier_graphs
from earmark_training.verifier.network import FRAMES, first_log_odds, from_onnx, to_onnx
from earmark_training.verifier.proposals import collect, collect_in_noise, together
from earmark_training.verifier.train import (
    drawing_weights,
    fit_encoded_fusion,
    fit_fusion,
    train,
    train_encoded,
)

if TYPE_CHECKING:
    from earmark_training.verifier.network import VerifierNetwork
    from earmark_training.verifier.proposals import Proposals
    from numpy.typing import NDArray

TRAINING_SEED, FEATURES_SEED, VALIDATION_SEED, WINDOWS_SEED, SEED = 1, 3, 2, 5, 7
NOISE_PASSES, NOISE_PASSES_OF_FEATURES, NOISE_WEIGHT_OF_FEATURES = 8, 3, 0.5
"""The weight is that of a window in noise for the graph on features."""
STEPS_OF_FEATURES = 3600
WINDOWS = 2000
"""The windows whose mean and variance the batch normalization begins with."""
FUSION_THRESHOLD = 0.05
"""The fusion of the graph on features is fitted on the proposals whose score so far is at least this."""
BATCH = 64


def main() -> None:
    """Train both graphs and write the model."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name in ("model", "corpus", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--passes", type=int, default=8)
    parser.add_argument("--examples", type=int, default=640_000)
    args = parser.parse_args()
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    torch.set_num_threads(1)
    corpus, model, graph = Corpus(args.corpus), SpotterModel.load(args.model), onnx.load(args.model)
    unverified = pack(graph, model.initial_state, replace(model.metadata, verifier=None))
    keywords, checkpoint = len(model.metadata.keywords), args.out.with_suffix(".checkpoint")
    with Progress() as progress:
        proposals = partial(collect, unverified, corpus, progress=progress)
        in_noise = partial(collect_in_noise, unverified, corpus, "training", progress=progress)
        found = together(
            [
                in_noise(TRAINING_SEED, passes=NOISE_PASSES, with_features=False),
                proposals("training", TRAINING_SEED, passes=args.passes, with_features=False),
            ]
        )
        start = from_onnx(verifier_graphs(graph)[VERIFIER_KEY], some_windows(found))
        network = train(
            found, keywords, args.examples,
            start=start, seed=SEED, checkpoint=checkpoint, progress=progress,
        )  # fmt: skip
        speech = proposals("training", FEATURES_SEED)
        noise = in_noise(FEATURES_SEED, passes=NOISE_PASSES_OF_FEATURES)
        weights = [drawing_weights(speech), NOISE_WEIGHT_OF_FEATURES * drawing_weights(noise)]
        encoded = train_encoded(
            together([speech, noise]), keywords, STEPS_OF_FEATURES,
            weights=np.concatenate(weights), progress=progress,
        )  # fmt: skip
        validation = proposals("validation", VALIDATION_SEED)
    fit_fusion(network, validation)
    validation = replace(validation, verified=final_scores(network, validation))
    fit_encoded_fusion(encoded, validation, FUSION_THRESHOLD)
    written = pack(
        graph, model.initial_state, model.metadata, args.out,
        verifier=to_onnx(network), encoded_verifier=encoded_verifier.to_onnx(encoded),
    )  # fmt: skip
    checkpoint.unlink(missing_ok=True)
    print(f"{args.out}: SHA-256 {written.sha256}")


def some_windows(found: Proposals) -> torch.Tensor:
    """Return log-mel of some windows, (N, FRAMES, 32)."""
    count = len(found.mel)
    chosen = np.random.default_rng(WINDOWS_SEED).choice(count, min(WINDOWS, count), replace=False)
    return torch.from_numpy(found.mel[np.sort(chosen), -FRAMES:].astype(np.float32))


@torch.no_grad()
def final_scores(network: VerifierNetwork, found: Proposals) -> NDArray[np.float32]:
    """Return the scores of the graph on audio, [N]."""
    parts = np.array_split(np.arange(len(found.label)), -(-len(found.label) // BATCH))
    logits = [network.logits(torch.from_numpy(found.mel[i, -FRAMES:].astype(np.float32))) for i in parts]
    odds = log_odds_of(torch.cat(logits), torch.from_numpy(found.proposed - 1))
    scores: NDArray[np.float32] = fused(
        network.fusion, first_log_odds(torch.from_numpy(found.score)), odds
    ).numpy()
    return scores


if __name__ == "__main__":
    main()
