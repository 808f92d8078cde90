"""What training and tuning share: how fast is learnt at which step, and the average that is kept."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import nn


def rate_at(step: int, *, warmup_steps: int, steps: int) -> float:
    """Return the share of the learning rate at a step: up in a line, then down in a cosine to nothing."""
    fallen = 0.5 + 0.5 * math.cos(math.pi * step / steps)
    return min(1.0, (step + 1) / warmup_steps) * fallen


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, step: int, *, most: float) -> None:
    """Move the average of the weights a little towards the network; counters are taken as they are.

    `most`: how much of the average stays, at most; at the first steps less does.
    """
    decay = min(most, (step + 1) / (step + 10))
    values = network.state_dict()
    for name, mean in average.state_dict().items():
        if mean.is_floating_point():
            mean.lerp_(values[name], 1 - decay)
        else:
            mean.copy_(values[name])
