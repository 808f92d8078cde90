from __future__ import annotations

from earmark_training.model.recipe import Recipe


def test_every_epoch_is_in_its_cycle():
    recipe = Recipe(cycles=(5, 3))
    first, last = (0, range(5)), (1, range(5, 8))
    assert [recipe.cycle(epoch) for epoch in range(recipe.epochs)] == [first] * 5 + [last] * 3
