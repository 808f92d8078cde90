"""Training recipes: the network's shape, the data mix and the hyperparameters."""

from __future__ import annotations

import itertools
from bisect import bisect_right
from dataclasses import dataclass, field, replace

from earmark_training.data.examples import Mix
from earmark_training.data.vocabulary import DEFAULT_KEYWORDS, labels_for
from earmark_training.model.network import Shape

_CLIPS_PER_BATCH = 64


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to train a network. `PRESETS` has the named recipes."""

    keywords: tuple[str, ...] = DEFAULT_KEYWORDS
    channels: int = 144
    kernels: tuple[int, ...] = (7, 7, 5, 5, 5, 5, 5, 5, 5, 5)
    strides: tuple[int, ...] = (1, 2, 1, 1, 1, 1, 1, 1, 1, 1)
    late_blocks: int = 2
    """Number of blocks at the end that are added in a later cycle; they start as the identity."""
    late_cycle: int = 2
    """The cycle that adds them, or the last one of fewer cycles."""
    cycles: tuple[int, ...] = (36, 36, 30)
    """Epochs of each cycle, which ends at learning rate 0 (Loshchilov and Hutter 2017, arXiv 1608.03983)."""
    steps_per_epoch: int = 0
    """Batches in an epoch; 0 means as many as the training clips need: see `for_clips`."""
    learning_rate: float = 3e-3
    last_learning_rate: float | None = None
    """Learning rate of the last cycle; None means that of the others."""
    last_ema_decay: float | None = None
    """Averaging of the weights in the last cycle; None means that of the others."""
    last_share: float = 1.0
    """Share of the last cycle's weights in the trained network; the others are those before that cycle."""
    first_features: int = 0
    """Index of the first cycle's features: above 0 for a recipe that is a later part of another."""
    weight_decay: float = 0.02
    warmup_steps: int = 500
    ema_decay: float = 0.9997
    processes: int = 2
    """Training processes, each with a part of every batch: one per core. Their number changes the result
    slightly."""
    seed: int = 1
    mix: Mix = field(default_factory=Mix)
    last_mix: Mix | None = None
    """The mix of the last cycle; None means that of the others."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The model's classes in order."""
        return labels_for(self.keywords)

    @property
    def epochs(self) -> int:
        """The number of epochs of all cycles."""
        return sum(self.cycles)

    def for_clips(self, count: int) -> Recipe:
        """Return the recipe for a number of training clips: an epoch has each of them about once.

        But no less than 250 batches, so that a small set is repeated, and no more than 1000.
        """
        if self.steps_per_epoch:
            return self
        return replace(self, steps_per_epoch=max(250, min(1000, count // _CLIPS_PER_BATCH)))

    def shape_in(self, cycle: int) -> Shape:
        """Return the network's shape in a cycle."""
        late = cycle < min(self.late_cycle, len(self.cycles) - 1)
        blocks = len(self.kernels) - (self.late_blocks if late else 0)
        kernels, strides = self.kernels[:blocks], self.strides[:blocks]
        return Shape(len(self.labels), channels=self.channels, kernels=kernels, strides=strides)

    @property
    def shape(self) -> Shape:
        """The network's shape in the last cycle."""
        return self.shape_in(len(self.cycles) - 1)

    def mix_in(self, cycle: int) -> Mix:
        """Return the mix of a cycle's examples."""
        return self.last_mix if self.last_mix is not None and self.is_last(cycle) else self.mix

    def learning_rate_in(self, cycle: int) -> float:
        """Return the learning rate of a cycle."""
        rate = self.last_learning_rate
        return rate if rate is not None and self.is_last(cycle) else self.learning_rate

    def ema_decay_in(self, cycle: int) -> float:
        """Return the decay of the average of the weights in a cycle."""
        decay = self.last_ema_decay
        return decay if decay is not None and self.is_last(cycle) else self.ema_decay

    def is_last(self, cycle: int) -> bool:
        """Return whether a cycle is the last one."""
        return cycle == len(self.cycles) - 1

    def cycle(self, epoch: int) -> tuple[int, range]:
        """Return the cycle of an epoch, and the range of epochs in that cycle."""
        ends = list(itertools.accumulate(self.cycles))
        index = bisect_right(ends, epoch)
        return index, range(ends[index] - self.cycles[index], ends[index])


REAL_ROOMS = Mix(
    speech=0.36,
    noise=0.11,
    keyword=0.62,
    unknown_word=0.2,
    joined=0.06,
    add_noise=0.65,
    add_noise_to_speech=0.65,
    snr_db=(-4.0, 25.0),
    speech_snr_db=(0.0, 22.0),
    gain_db=(-30.0, 12.0),
    onset=0.34,
    by_word=0.5,
    room=0.28,
    band_limit=0.12,
    noises=(0.4, 0.1, 0.34, 0.11, 0.05),
    noises_alone=(0.3, 0.1, 0.0, 0.28, 0.32),
    talkers=(2, 9),
)
"""The mix of the last cycle: noise, babble, rooms and telephones on most of the speech."""

_LAST_EPOCHS = 16

PRESETS = {
    "default": Recipe(
        cycles=(36, 36, 30, _LAST_EPOCHS),
        last_learning_rate=1.5e-3,
        last_ema_decay=0.999,
        last_share=0.75,
        last_mix=REAL_ROOMS,
    ),
    "continue": Recipe(
        late_blocks=0,
        cycles=(_LAST_EPOCHS,),
        first_features=3,
        learning_rate=1.5e-3,
        warmup_steps=200,
        ema_decay=0.999,
        last_share=0.75,
        mix=REAL_ROOMS,
    ),
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
