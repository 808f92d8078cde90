from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import pytest
import torch
from earmark_training.errors import RecipeError
from earmark_training.model.checkpoint import (
    CHECKPOINT,
    check_inputs,
    check_recipe,
    history_length,
    load_trained,
    resume,
)
from earmark_training.model.train import train
from support.tiny_training import RECIPE

if TYPE_CHECKING:
    from pathlib import Path

    from earmark_training.data.corpus import Corpus


def test_a_checkpoint_is_loaded_from_its_file_or_its_folder(run: Path):
    assert load_trained(run).recipe == load_trained(run / CHECKPOINT).recipe == RECIPE


def test_a_file_that_is_not_a_checkpoint_or_an_older_one_is_rejected(run: Path, tmp_path: Path):
    state = torch.load(run / CHECKPOINT, weights_only=True)
    torch.save(state | {"recipe": state["recipe"] | {"epochs": 8}}, tmp_path / "older.pt")
    (tmp_path / "text.pt").write_text("no checkpoint")
    (tmp_path / "empty.pt").touch()
    for name in ("older.pt", "text.pt", "empty.pt"):
        with pytest.raises(RecipeError, match=f"{name} is not a checkpoint"):
            load_trained(tmp_path / name)


@pytest.mark.parametrize(
    "content",
    [b"", b"no checkpoint", b"PK\3\4", b"\x80\x02}", b"\x80\x02\x85", b"\x80\x02M", b"\x80\x02X\1\0\0\0\xff"],
)
def test_a_damaged_checkpoint_is_rejected_before_the_training(content: bytes, corpus: Corpus, tmp_path: Path):
    (tmp_path / CHECKPOINT).write_bytes(content)
    with pytest.raises(RecipeError, match=r"checkpoint\.pt is not a checkpoint.*: delete it to start over"):
        train(corpus, RECIPE, tmp_path)


@pytest.mark.parametrize("state", [[], {}, {"recipe": None}, {"recipe": {}, "history": 1}])
def test_a_checkpoint_without_its_content_is_rejected(state: object, tmp_path: Path):
    torch.save(state, tmp_path / CHECKPOINT)
    for read in (partial(check_recipe, recipe=RECIPE), partial(resume, recipe=RECIPE), history_length):
        with pytest.raises(RecipeError, match="is not a checkpoint"):
            read(tmp_path / CHECKPOINT)


def test_the_weights_before_the_last_cycle_have_their_share(run: Path, tmp_path: Path):
    state = torch.load(run / CHECKPOINT, weights_only=True)
    before = {name: torch.zeros_like(value) for name, value in state["average"].items()}
    recipe = state["recipe"] | {"last_share": 0.75}
    torch.save(state | {"recipe": recipe, "before": before}, tmp_path / CHECKPOINT)
    mean, last = load_trained(tmp_path).network, load_trained(run).network
    torch.testing.assert_close(mean.head.weight, 0.75 * last.head.weight)


def test_only_the_last_number_of_epochs_can_be_raised(run: Path):
    *first, last = RECIPE.cycles
    check_recipe(run / CHECKPOINT, RECIPE)
    check_recipe(run / CHECKPOINT, replace(RECIPE, cycles=(*first, last + 1)))
    for other in (
        replace(RECIPE, cycles=(*first, last - 1)),
        replace(RECIPE, cycles=(first[0] + 1, last)),
        replace(RECIPE, cycles=(*first, last, 1)),
        replace(RECIPE, cycles=(*first, last + 1), seed=9),
    ):
        with pytest.raises(RecipeError, match=r"another recipe \(.*cycles.*--epochs 2,1\).*can be raised"):
            check_recipe(run / CHECKPOINT, other)


def test_a_checkpoint_of_another_corpus_or_start_is_rejected_but_an_older_one_is_not(tmp_path: Path):
    path, inputs = tmp_path / CHECKPOINT, {"corpus": "1", "--start": "2"}
    torch.save({"inputs": inputs}, path)
    check_inputs(path, inputs)
    with pytest.raises(RecipeError, match="trained with another corpus: use the same as before"):
        check_inputs(path, inputs | {"corpus": "3"})
    with pytest.raises(RecipeError, match="trained with another corpus and another --start"):
        check_inputs(path, {"corpus": "3", "--start": ""})
    torch.save({}, path)
    check_inputs(path, inputs)
