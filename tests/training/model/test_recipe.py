from __future__ import annotations

from support.tiny_training import RECIPE


def test_every_epoch_is_in_its_cycle():
    first, last = (0, range(5)), (1, range(5, 8))
    assert [RECIPE.cycle(epoch) for epoch in range(RECIPE.epochs)] == [first] * 5 + [last] * 3
