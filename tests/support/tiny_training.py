"""Recipes that train in seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from earmark_training.data import features
from earmark_training.data.examples import ExampleMaker, Mix
from earmark_training.keyword.examples import KeywordMix
from earmark_training.keyword.fine_tune import FineTuneRecipe
from earmark_training.model.network import Shape
from earmark_training.model.recipe import Recipe

if TYPE_CHECKING:
    from earmark_training.data.features import FeatureCache

RECIPE = Recipe(
    keywords=("yes", "no"),
    channels=24,
    kernels=(5, 5, 3),
    strides=(1, 2, 1),
    late_blocks=1,
    cycles=(2, 1),
    steps_per_epoch=80,
    learning_rate=1e-2,
    warmup_steps=10,
    ema_decay=0.95,
    mix=Mix(
        streams=8,
        speech=0.1,
        noise=0.2,
        keyword=0.5,
        unknown_word=0.4,
        joined=0,
        warp=0,
        tempo=(0.95, 1.05),
        snr_db=(5, 30),
        gain_db=(-10, 5),
    ),
)

BASE_SHAPE = Shape(4, channels=32, kernels=(5, 5, 5, 5), strides=(1, 2, 1, 1))
# The body is untrained, so it has the learning rate of the head.
FINE_TUNE_RECIPE = FineTuneRecipe(
    steps=100,
    learning_rate=1e-2,
    body_rate=1.0,
    warmup_steps=5,
    ema_decay=0.8,
    rounds=1,
    verifier_batches=8,
    verifier_steps=80,
    mix=KeywordMix(size=16, snr_db=(10, 30), gain_db=(-10, 5)),
)


def use_few_synthetic_sounds() -> None:
    """Compute features of 10 instead of 270 synthetic sounds, in this process."""
    features._SYNTHETIC_PIECES = 10


def make_examples(cache: FeatureCache, mix: Mix = RECIPE.mix) -> ExampleMaker:
    """Return the maker of the recipe's examples, with another mix if it is given."""
    shape = RECIPE.shape
    return ExampleMaker(cache, shape.front_end, shape.score_window, RECIPE.labels, mix)
