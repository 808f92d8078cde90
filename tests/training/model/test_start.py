from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from earmark_spotter import SpotterModel
from earmark_spotter.metadata import KeywordInfo
from earmark_training.errors import RecipeError
from earmark_training.keyword.fine_tune import with_new_head
from earmark_training.model.network import Network
from earmark_training.model.onnx_file import load_network, pack, to_onnx
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


def test_a_training_and_a_fine_tuning_start_without_the_added_classes_of_a_model_file(
    model_path: Path, caches: list[FeatureCache], tmp_path: Path
):
    """The bundled model has such classes: its keywords on and off."""
    base, model = load_network(model_path), SpotterModel.load(model_path)
    extended = Network(replace(base.shape, classes=5, added_classes=1, added_blocks=1)).folded()
    missing, _ = extended.load_state_dict(base.state_dict(), strict=False)
    assert all(name.startswith("added.") for name in missing)
    keywords = {**model.metadata.keywords, "cat": KeywordInfo(0.5, 500, 0, 400)}
    metadata = replace(model.metadata, labels=(*model.metadata.labels, "cat"), keywords=keywords)
    path = tmp_path / "extended.onnx"
    pack(to_onnx(extended), extended.silent_state().numpy(), metadata, path)
    restored = load_network(path)
    assert restored.shape == extended.shape
    for name, value in extended.state_dict().items():
        assert torch.equal(value, restored.state_dict()[name])

    recipe = replace(RECIPE, keywords=("yes", "no", "cat"))
    check_start(path, recipe.shape)
    network, maker = Network(recipe.shape), make_examples(caches[0])
    copy_network(path, network, recipe.labels, maker)
    mel = network.normalize(maker.batch((5,)).mel)
    with torch.no_grad():
        logits, expected = network.eval().logits(mel), base.logits(mel)
        torch.testing.assert_close(logits[..., :4], expected, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(logits[..., 4], logits[..., 1] - 2.0)
        tuned = with_new_head(restored)
        assert tuned.shape == replace(base.shape, classes=3)
        torch.testing.assert_close(tuned.logits(mel)[..., :2], expected[..., :2])


def test_a_network_of_another_shape_is_rejected(model_path: Path):
    check_start(model_path, replace(RECIPE, keywords=("yes", "no", "cat")).shape)
    with pytest.raises(RecipeError, match="another shape"):
        check_start(model_path, RECIPE.shape_in(0))
