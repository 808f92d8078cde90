"""The state of a training run in memory: the network, the average of its weights, and the optimizer."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

import torch

from earmark_training.model.network import Network

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from earmark_training.model.network import Shape
    from earmark_training.model.recipe import Recipe


class Learner:
    """A network in training, the moving average of its weights, and its optimizer."""

    def __init__(self, recipe: Recipe, shape: Shape) -> None:
        torch.manual_seed(recipe.seed)
        self.network = Network(shape)
        self.average = deepcopy(self.network).eval()
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
        )
        self.before: dict[str, Tensor] | None = None
        """The average of the weights before the last cycle, where the recipe needs it."""

    def grown(self, recipe: Recipe, shape: Shape) -> Learner:
        """Return a learner whose network has more blocks at the end, and has the same output as before."""
        learner = Learner(recipe, shape)
        for new, old in ((learner.network, self.network), (learner.average, self.average)):
            new.load_state_dict({**new.state_dict(), **old.state_dict()})
        return learner

    def set_normalization(self, mean: NDArray[np.float32], deviation: NDArray[np.float32]) -> None:
        """Set the mean and the standard deviation of log-mel, [mels] each, that the input is scaled by."""
        for network in (self.network, self.average):
            network.mel_mean.copy_(torch.from_numpy(mean))
            network.mel_scale.copy_(torch.from_numpy(1 / deviation))
