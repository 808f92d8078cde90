from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from earmark_training.errors import RecipeError
from earmark_training.model.network import Network
from earmark_training.model.onnx_file import load_network
from earmark_training.model.start import check_start, copy_network
from support.tiny_training import RECIPE, make_examples

if TYPE_CHECKING:
    from pathlib import Path

    from earmark_training.data.features import FeatureCache


def test_a_training_from_a_model_file_starts_with_its_scores(model_path: Path, caches: list[FeatureCache]):
    maker = make_examples(caches[0])
    recipe = replace(RECIPE, keywords=("yes", "no", "cat"))
    network = Network(recipe.shape)
    copy_network(model_path, network, recipe.labels, maker)
    mel = network.normalize(maker.batch((5,)).mel)
    with torch.no_grad():
        logits = network.eval().logits(mel)
        expected = load_network(model_path).logits(mel)
    torch.testing.assert_close(logits[..., :4], expected, atol=1e-3, rtol=1e-3)
    # A new keyword starts as unknown speech that is less likely.
    torch.testing.assert_close(logits[..., 4], logits[..., 1] - 2.0)


def test_a_network_of_another_shape_is_rejected(model_path: Path):
    check_start(model_path, replace(RECIPE, keywords=("yes", "no", "cat")).shape)
    with pytest.raises(RecipeError, match="another shape"):
        check_start(model_path, RECIPE.shape_in(0))
