from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from earmark_training.keyword.fine_tune import fine_tune
from earmark_training.model.onnx_file import load_network
from support.tiny_training import FINE_TUNE_RECIPE

if TYPE_CHECKING:
    from pathlib import Path

    from earmark_training.keyword.training_set import TrainingSet

pytestmark = pytest.mark.usefixtures("few_sounds")


@pytest.mark.slow
def test_fine_tuning_starts_with_the_base_and_is_reproducible(training_set: TrainingSet, base: Path):
    network = load_network(base)
    before = [p.clone() for p in network.parameters()]
    recipe = replace(FINE_TUNE_RECIPE, steps=3, rounds=0)
    first, again = (fine_tune(network, training_set, recipe) for _ in range(2))
    assert all(p.equal(q) for p, q in zip(network.parameters(), before, strict=True))
    assert all(p.equal(q) for p, q in zip(first.parameters(), again.parameters(), strict=True))
    changes = [
        (p - q).abs().max()
        for p, q in zip(first.blocks.parameters(), network.blocks.parameters(), strict=True)
    ]
    assert 0 < max(changes) < 0.1
