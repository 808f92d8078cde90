"""Training of the verifier on the proposals of the training split, and its fusion with the first network."""

from __future__ import annotations

import hashlib
import logging
import math
import time
from copy import deepcopy
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from earmark_audio.progress import SILENT, Progress
from torch import Tensor, nn

from earmark_training.errors import RecipeError
from earmark_training.model.checkpoint import loaded_state, write_state
from earmark_training.model.encoded_verifier import EncodedVerifier, log_odds_of, log_odds_so_far
from earmark_training.model.encoded_verifier_training import train_on_features
from earmark_training.model.precision import matrix_precision
from earmark_training.model.schedule import learning_rate_factor, update_average
from earmark_training.verifier.network import FRAMES, VerifierNetwork, first_log_odds, limit_range
from earmark_training.verifier.proposals import CONTEXT_FRAMES, Proposals, Source

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

log = logging.getLogger(__name__)

_BATCH, _HEAD_BATCH = 64, 256
_HEAD_EPOCHS, _HEAD_RATE, _MIXUP = 12, 2e-3, 0.3
_RATE, _RATE_OF_HEAD, _WARMUP = 5e-4, 1.2e-3, 100
_FROZEN_POOLS = 2
"""The layers before this many poolings keep their weights: they cost most of the time, and suit all words."""
_NONE_WEIGHT, _HARD_WEIGHT, _RANDOM_WEIGHT, _HARD_SCORE = 1.0, 2.5, 0.7, 0.2
_NOISE, _SNR_DB = 0.35, (3.0, 28.0)
_INTERFERENCE = 0.6
_MASK, _MASKED_BANDS, _MASKED_FRAMES = 0.5, 6, 16
_MOVED_FRAMES = 5
_ENCODED_CHANNELS = 160
_CHECKPOINT_STEPS = 200


def train(
    proposals: Proposals,
    keywords: int,
    examples: int,
    *,
    start: VerifierNetwork | None = None,
    seed: int = 1,
    checkpoint: Path | None = None,
    progress: Progress = SILENT,
) -> VerifierNetwork:
    """Return a verifier that was trained on the proposals.

    First a head on the pretrained embedding, then head and embedding together, on `examples` examples; the
    network `start`, if there is one, is trained further instead. The state of the training is kept in the
    file `checkpoint`, and the training continues from there. Raises RecipeError if it is damaged, or the
    state of another training.
    """
    torch.manual_seed(seed)
    network = start or VerifierNetwork(keywords)
    if start is None:
        network.embedding.load_pretrained()
    # Convolutions are twice as fast in this layout.
    network.embedding.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if start is None and (checkpoint is None or not checkpoint.is_file()):
        _train_head(network, proposals, progress)
    return _fine_tune(network, proposals, examples, seed, checkpoint=checkpoint, progress=progress)


def _targets(proposals: Proposals) -> NDArray[np.int64]:
    """Return the head's class of each proposal: 0 for none, then the keywords."""
    return np.maximum(proposals.label - 1, 0)


def drawing_weights(proposals: Proposals) -> NDArray[np.float64]:
    """Return the weights in proportion to which proposals are drawn for the training, [N]."""
    label = proposals.label
    weights = np.where(label == 0, _NONE_WEIGHT, 1.0)
    weights[(label == 0) & (proposals.score > _HARD_SCORE)] = _HARD_WEIGHT
    weights[(label == 0) & (proposals.source == Source.RANDOM)] = _RANDOM_WEIGHT
    return weights


def train_encoded(
    proposals: Proposals,
    keywords: int,
    steps: int,
    *,
    weights: NDArray[np.float64] | None = None,
    seed: int = 1,
    progress: Progress = SILENT,
) -> EncodedVerifier:
    """Return a verifier that was trained on the proposals' features of the speech encoder.

    weights: [N], instead of `drawing_weights`.
    """
    torch.manual_seed(seed)
    network = EncodedVerifier(keywords, _ENCODED_CHANNELS)
    targets = _targets(proposals)
    if weights is None:
        weights = drawing_weights(proposals)
    return train_on_features(
        network, proposals.features, targets, weights, steps, seed=seed, progress=progress
    )


def _train_head(network: VerifierNetwork, proposals: Proposals, progress: Progress) -> None:
    """Train the head on the embeddings of the unchanged windows, with mixup (Zhang et al. 2018)."""
    rng = np.random.default_rng(0)
    starts = range(0, len(proposals.mel), _BATCH)
    with torch.inference_mode():
        embeddings = [
            network.embedding(torch.from_numpy(proposals.mel[i : i + _BATCH, -FRAMES:].astype(np.float32)))
            for i in progress(starts, desc="embedding the proposals", total=len(starts), unit="batches")
        ]
    inputs, targets = torch.cat(embeddings).clone(), torch.from_numpy(_targets(proposals))
    weights = np.where(proposals.label == 0, 1.5, 1.0)
    head, steps = network.head.train(), _HEAD_EPOCHS * (len(inputs) // _HEAD_BATCH)
    optimizer = torch.optim.AdamW(head.parameters(), _HEAD_RATE, weight_decay=0.03)
    for step in progress(range(steps), desc="training the head", total=steps, unit="batches"):
        _set_rates(optimizer, [_HEAD_RATE], step, steps)
        index = torch.from_numpy(rng.choice(len(inputs), _HEAD_BATCH, p=weights / weights.sum()))
        share = max(share := float(rng.beta(_MIXUP, _MIXUP)), 1 - share)
        other = torch.randperm(_HEAD_BATCH)
        x, y = inputs[index], targets[index]
        logits = head(share * x + (1 - share) * x[other])
        loss = share * nn.functional.cross_entropy(logits, y)
        loss = loss + (1 - share) * nn.functional.cross_entropy(logits, y[other])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()


def _fine_tune(
    network: VerifierNetwork,
    proposals: Proposals,
    examples: int,
    seed: int,
    *,
    checkpoint: Path | None,
    progress: Progress,
) -> VerifierNetwork:
    source, weights = proposals.source, drawing_weights(proposals)
    ends = np.cumsum(weights / weights.sum())
    is_noise = (source == Source.SOUNDS) | ((source == Source.RANDOM) & (np.arange(len(source)) % 3 == 0))
    noises, targets = proposals.mel[is_noise], _targets(proposals)

    layers = network.embedding.layers
    pools = [i for i, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)]
    frozen, trained = layers[: pools[_FROZEN_POOLS - 1] + 1], layers[pools[_FROZEN_POOLS - 1] + 1 :]
    groups = [
        {"params": list(trained.parameters()), "lr": _RATE},
        {"params": list(network.head.parameters()), "lr": _RATE_OF_HEAD},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.02)
    average, steps = deepcopy(network).eval(), max(1, examples // _BATCH)
    first, total, began_s = 0, 0.0, time.monotonic()
    content = f"{examples} {seed}".encode() + proposals.score.tobytes() + proposals.label.tobytes()
    digest = hashlib.sha256(content).hexdigest()
    if checkpoint is not None and checkpoint.is_file():
        with loaded_state(checkpoint) as state:
            if state.get("digest") != digest:
                raise RecipeError(
                    f"{checkpoint} is of a training with another model, corpus or options: repeat the "
                    "command that began it, choose another --network, or delete it to start over"
                )
            first = state["step"]
            network.load_state_dict(state["network"])
            average.load_state_dict(state["average"])
            optimizer.load_state_dict(state["optimizer"])
    for step in progress(
        range(first, steps), desc="training the verifier", total=steps - first, unit="batches"
    ):
        # Each step has its own random numbers, so that a training that continues makes the same steps.
        rng = np.random.default_rng((seed, step))
        torch.manual_seed(int(rng.integers(2**32)))
        _set_rates(optimizer, [_RATE, _RATE_OF_HEAD], step, steps)
        index = np.minimum(np.searchsorted(ends, rng.random(_BATCH)), len(ends) - 1)
        mel = _augment(rng, torch.from_numpy(proposals.mel[index].astype(np.float32)), noises)
        network.train()
        with matrix_precision():
            with torch.no_grad():
                low = frozen(mel.unsqueeze(1))
            embeddings = cast("Tensor", trained(low)).squeeze(-1).transpose(1, 2)
        logits = network.head(embeddings.float())
        loss = nn.functional.cross_entropy(logits, torch.from_numpy(targets[index]))
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        update_average(average, network, step, max_decay=0.995)
        total += loss.item()
        if checkpoint is not None and (step + 1) % _CHECKPOINT_STEPS == 0:
            state = {
                "digest": digest,
                "step": step + 1,
                "network": network.state_dict(),
                "average": average.state_dict(),
                "optimizer": optimizer.state_dict(),
            }
            write_state(checkpoint, state)
        if (step + 1) % 100 == 0:
            log.info(
                "step %d of %d loss %.4f %.0f s", step + 1, steps, total / 100, time.monotonic() - began_s
            )
            total = 0.0
    return average


def _set_rates(optimizer: torch.optim.Optimizer, rates: list[float], step: int, steps: int) -> None:
    factor = learning_rate_factor(step, warmup_steps=_WARMUP, steps=steps)
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate * factor


@torch.no_grad()
def _augment(rng: np.random.Generator, mel: Tensor, noises: NDArray[np.float16]) -> Tensor:
    """Return windows (batch, FRAMES, 32) of log-mel (batch, CONTEXT_FRAMES, 32): moved, noisy, masked."""
    batch = len(mel)
    power = 10 ** (mel - 2)
    if len(noises):
        noise = 10 ** (torch.from_numpy(noises[rng.integers(len(noises), size=batch)].astype(np.float32)) - 2)
        gain = 10 ** (-rng.uniform(*_SNR_DB, batch) / 10) * (rng.random(batch) < _NOISE)
        # The level of the loudest quarter of the spectrum, which is the word, above the mean of the noise.
        level = power.flatten(1).topk(power[0].numel() // 4, 1).values.mean(1)
        level = level / noise.flatten(1).mean(1).clamp(min=1e-12)
        noise = noise * (level * torch.from_numpy(gain.astype(np.float32)))[:, None, None]
        phase = torch.cos(torch.rand(power.shape) * math.pi)
        power = power + noise + 2 * _INTERFERENCE * phase * (power * noise).sqrt()
    mel = limit_range(torch.log10(power.clamp(min=1e-10)) + 2)
    windows = torch.empty(batch, FRAMES, mel.shape[2])
    for row, window in zip(mel, windows, strict=True):
        first = CONTEXT_FRAMES - FRAMES - int(rng.integers(_MOVED_FRAMES))
        window.copy_(row[first : first + FRAMES])
        mean = window.mean()
        for _ in range(2):
            for axis, longest in ((1, _MASKED_BANDS), (0, _MASKED_FRAMES)):
                if rng.random() < _MASK:
                    length = int(rng.integers(1, longest))
                    start = int(rng.integers(window.shape[axis] - length + 1))
                    window.narrow(axis, start, length).fill_(mean)
    return windows


def fit_fusion(network: VerifierNetwork, proposals: Proposals) -> None:
    """Fit the weights of the first network's log-odds and of these, on proposals of other speakers."""
    peaks = np.flatnonzero(proposals.source != Source.RANDOM)
    _fit(
        network,
        proposals,
        peaks,
        first_log_odds(torch.from_numpy(proposals.score)),
        proposals.mel[:, -FRAMES:],
    )


def fit_encoded_fusion(network: EncodedVerifier, proposals: Proposals, threshold: float) -> None:
    """Fit the weights of the log-odds so far and of this network's, on proposals of other speakers.

    threshold: the lowest score so far of the proposals that it is fitted on.
    """
    peaks = np.flatnonzero((proposals.source != Source.RANDOM) & (proposals.verified >= threshold))
    _fit(network, proposals, peaks, log_odds_so_far(torch.from_numpy(proposals.verified)), proposals.features)


def _fit(
    network: VerifierNetwork | EncodedVerifier,
    proposals: Proposals,
    peaks: NDArray[np.int64],
    first: Tensor,
    inputs: NDArray[np.float16],
) -> None:
    """Fit `network.fusion` by logistic regression on some of the proposals.

    first: the log-odds of all proposals before this network, [N]. inputs: the network's inputs of all.
    """
    correct = torch.from_numpy((proposals.label == proposals.proposed)[peaks]).float()
    with torch.inference_mode():
        logits = torch.cat(
            [
                network.logits(torch.from_numpy(inputs[i].astype(np.float32)))
                for i in np.array_split(peaks, -(-len(peaks) // _BATCH))
            ]
        )
    second = log_odds_of(logits.clone(), torch.from_numpy(proposals.proposed[peaks] - 1))
    network.fusion.copy_(_fitted_fusion(first[peaks], second, correct))
    log.info("fusion: %s", network.fusion.tolist())


def _fitted_fusion(before: Tensor, odds: Tensor, correct: Tensor) -> Tensor:
    """Return the fusion (3) of log-odds (N), those before a network and its own; correct: 0 or 1, (N)."""
    features = torch.stack((before, odds, torch.ones_like(odds)), 1)
    weights = torch.tensor([1.0, 1.0, 0.0], requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=100)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.binary_cross_entropy_with_logits(features @ weights, correct)
        torch.autograd.backward(loss)
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return weights.detach()
