"""Training of a verifier on the features of windows, which were computed before."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

import numpy as np
import torch
from earmark_audio.progress import SILENT, Progress
from torch import nn

from earmark_training.model.schedule import learning_rate_factor, update_average

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from earmark_training.model.encoded_verifier import EncodedVerifier

_BATCH, _RATE, _WARMUP_STEPS, _WEIGHT_DECAY, _AVERAGE_DECAY = 128, 3e-3, 100, 0.05, 0.99
_MIXUP, _NOISE, _LONGEST_MASK = 0.3, 0.2, 5
_MAX_NORM = 5.0


def train_on_features(
    network: EncodedVerifier,
    features: NDArray[np.float16],
    classes: NDArray[np.int64],
    weights: NDArray[np.float64],
    steps: int,
    *,
    seed: int,
    progress: Progress = SILENT,
) -> EncodedVerifier:
    """Train the network, with mixup (Zhang et al. 2018), and return the average of its weights.

    features: [N, FRAMES, WIDTH]. classes: [N], 0 for none, then the keywords. weights: [N], in proportion to
    which the windows are drawn. The same network and seed give the same weights.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng((seed, 4))
    network.train()
    average = deepcopy(network).eval()
    ends = np.cumsum(weights / weights.sum())
    optimizer = torch.optim.AdamW(network.parameters(), _RATE, weight_decay=_WEIGHT_DECAY)
    for step in progress(range(steps), desc="training on features", total=steps, unit="batches"):
        factor = learning_rate_factor(step, warmup_steps=_WARMUP_STEPS, steps=steps)
        for group in optimizer.param_groups:
            group["lr"] = _RATE * factor
        index = np.minimum(np.searchsorted(ends, rng.random(_BATCH)), len(ends) - 1)
        x, y = torch.from_numpy(features[index].astype(np.float32)), torch.from_numpy(classes[index])
        x += _NOISE * x.std() * torch.randn(x.shape)
        length = int(rng.integers(1, _LONGEST_MASK))
        x.narrow(1, int(rng.integers(x.shape[1] - length)), length).zero_()
        share = max(share := float(rng.beta(_MIXUP, _MIXUP)), 1 - share)
        other = torch.randperm(_BATCH)
        logits = network.logits(share * x + (1 - share) * x[other])
        loss = share * nn.functional.cross_entropy(logits, y)
        loss = loss + (1 - share) * nn.functional.cross_entropy(logits, y[other])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(network.parameters(), _MAX_NORM)
        optimizer.step()
        update_average(average, network, step, max_decay=_AVERAGE_DECAY)
    return average
