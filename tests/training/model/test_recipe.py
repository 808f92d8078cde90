from __future__ import annotations

from earmark_training.data.examples import Mix
from earmark_training.model.recipe import Recipe


def test_every_epoch_is_in_its_cycle():
    recipe = Recipe(cycles=(5, 3))
    first, last = (0, range(5)), (1, range(5, 8))
    assert [recipe.cycle(epoch) for epoch in range(recipe.epochs)] == [first] * 5 + [last] * 3


def test_the_last_cycle_can_have_its_own_mix_learning_rate_and_averaging():
    plain = Recipe(cycles=(5, 3))
    recipe = Recipe(cycles=(5, 3), last_learning_rate=1e-3, last_ema_decay=0.5, last_mix=Mix(streams=3))
    assert [recipe.learning_rate_in(cycle) for cycle in (0, 1)] == [plain.learning_rate, 1e-3]
    assert [recipe.ema_decay_in(cycle) for cycle in (0, 1)] == [plain.ema_decay, 0.5]
    assert [recipe.mix_in(cycle).streams for cycle in (0, 1)] == [plain.mix.streams, 3]
    assert [plain.mix_in(cycle) for cycle in (0, 1)] == [plain.mix] * 2


def test_the_batches_of_an_epoch_follow_the_number_of_clips():
    steps = [Recipe().for_clips(count).steps_per_epoch for count in (0, 3_000, 32_000, 85_000, 10**6)]
    assert steps == [250, 250, 500, 1000, 1000]
    assert Recipe(steps_per_epoch=40).for_clips(85_000).steps_per_epoch == 40
