"""Training recipes: the network's shape, the data mix and the hyperparameters."""

from __future__ import annotations

import itertools
from bisect import bisect_right
from dataclasses import dataclass, field

from earmark_training.data.examples import Mix
from earmark_training.data.vocabulary import DEFAULT_KEYWORDS, labels_for
from earmark_training.model.network import Shape


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to train a network. `PRESETS` has the named recipes."""

    keywords: tuple[str, ...] = DEFAULT_KEYWORDS
    channels: int = 144
    kernels: tuple[int, ...] = (7, 7, 5, 5, 5, 5, 5, 5, 5, 5)
    strides: tuple[int, ...] = (1, 2, 1, 1, 1, 1, 1, 1, 1, 1)
    late_blocks: int = 2
    """Number of blocks at the end that are added for the last cycle only; they start as the identity."""
    cycles: tuple[int, ...] = (36, 36, 30)
    """Epochs of each cycle, which ends at learning rate 0 (Loshchilov and Hutter 2017, arXiv 1608.03983)."""
    steps_per_epoch: int = 1000
    learning_rate: float = 3e-3
    weight_decay: float = 0.02
    warmup_steps: int = 500
    ema_decay: float = 0.9997
    processes: int = 2
    """Training processes, each with a part of every batch: one per core. Their number changes the result
    slightly."""
    seed: int = 1
    mix: Mix = field(default_factory=Mix)

    @property
    def labels(self) -> tuple[str, ...]:
        """The model's classes in order."""
        return labels_for(self.keywords)

    @property
    def epochs(self) -> int:
        """The number of epochs of all cycles."""
        return sum(self.cycles)

    def shape_in(self, cycle: int) -> Shape:
        """Return the network's shape in a cycle."""
        blocks = len(self.kernels) - (self.late_blocks if cycle < len(self.cycles) - 1 else 0)
        kernels, strides = self.kernels[:blocks], self.strides[:blocks]
        return Shape(len(self.labels), channels=self.channels, kernels=kernels, strides=strides)

    @property
    def shape(self) -> Shape:
        """The network's shape in the last cycle."""
        return self.shape_in(len(self.cycles) - 1)

    def cycle(self, epoch: int) -> tuple[int, range]:
        """Return the cycle of an epoch, and the range of epochs in that cycle."""
        ends = list(itertools.accumulate(self.cycles))
        index = bisect_right(ends, epoch)
        return index, range(ends[index] - self.cycles[index], ends[index])


PRESETS = {
    "default": Recipe(),
    "quick": Recipe(
        channels=64,
        kernels=(7, 7, 5, 5),
        strides=(1, 2, 1, 1),
        late_blocks=0,
        cycles=(4,),
        warmup_steps=200,
        ema_decay=0.998,
    ),
}
