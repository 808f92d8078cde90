"""The learning-rate schedule and the average of the weights, for training and fine-tuning alike."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import nn


def learning_rate_factor(step: int, *, warmup_steps: int, steps: int) -> float:
    """Return the factor of the learning rate at a step: linear warm-up times a cosine that falls to 0."""
    cosine = 0.5 + 0.5 * math.cos(math.pi * step / steps)
    return min(1.0, (step + 1) / warmup_steps) * cosine


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, step: int, *, max_decay: float) -> None:
    """Move the exponential moving average of the weights towards the network; copy integer buffers.

    `max_decay` is the share of the average that is kept in later steps; the first steps keep less.
    """
    decay = min(max_decay, (step + 1) / (step + 10))
    values = network.state_dict()
    for name, mean in average.state_dict().items():
        if mean.is_floating_point():
            mean.lerp_(values[name], 1 - decay)
        else:
            mean.copy_(values[name])
