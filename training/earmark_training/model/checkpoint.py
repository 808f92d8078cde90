"""Checkpoints: the file from which a training run is resumed, and from which its network is exported."""

from __future__ import annotations

import io
import pickle
import struct
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, cast

import torch

from earmark_training.data.examples import Mix
from earmark_training.errors import OutputError, RecipeError
from earmark_training.model.learner import Learner
from earmark_training.model.network import Network
from earmark_training.model.recipe import Recipe
from earmark_training.output_files import replace_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import Tensor

    from earmark_training.model.network import Shape

CHECKPOINT = "checkpoint.pt"

History = list[dict[str, float]]
"""The loss and the validation accuracy of each completed epoch."""


@dataclass(frozen=True, slots=True)
class TrainedNetwork:
    """The result of a run: the averaged network, its recipe, and the commit of the code that trained it."""

    network: Network
    recipe: Recipe
    commit: str


def save(
    path: Path,
    learner: Learner,
    recipe: Recipe,
    history: History,
    commit: str,
    *,
    inputs: dict[str, str],
) -> None:
    """Write a checkpoint, replacing an older one atomically.

    `inputs` are the digests of the files that the training depends on, by the name that messages use.
    """
    state = {
        "recipe": asdict(recipe),
        "network": learner.network.state_dict(),
        "average": learner.average.state_dict(),
        "optimizer": learner.optimizer.state_dict(),
        "before": learner.before,
        "history": history,
        "commit": commit,
        "inputs": inputs,
    }
    write_state(path, state)


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Write the state of a training, replacing an older one atomically.

    Raises OutputError if it cannot be written.
    """
    content = io.BytesIO()
    torch.save(state, content)
    try:
        replace_file(path, content.getbuffer())
    except OutputError as error:
        raise OutputError(
            f"{error}. Repeat the command when it can: it continues from the last checkpoint"
        ) from error


@contextmanager
def loaded_state(path: Path, kind: str = "checkpoint") -> Iterator[dict[str, Any]]:
    """Yield what `write_state` wrote, to be used in the `with` block.

    Raises RecipeError if the file is damaged, or if it lacks what the block reads from it. Its message calls
    the file a `kind`.
    """
    try:
        yield torch.load(path, weights_only=True)
    # torch.load raises errors of all these types for damaged files.
    except (
        pickle.UnpicklingError,
        struct.error,
        AttributeError,
        EOFError,
        LookupError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        raise RecipeError(
            f"{path} is not a {kind} that this version of Earmark has written, or it is damaged: delete it "
            "to start over"
        ) from error


def resume(path: Path, recipe: Recipe) -> tuple[Learner, History]:
    """Return the learner and the history of a checkpoint. Raises RecipeError if it is damaged."""
    with loaded_state(path) as state:
        history = cast("History", state["history"])
        learner = Learner(recipe, _shape_after(recipe, history))
        learner.network.load_state_dict(state["network"])
        learner.average.load_state_dict(state["average"])
        learner.optimizer.load_state_dict(state["optimizer"])
        learner.before = state["before"]
    return learner, history


def history_length(path: Path) -> int:
    """Return the number of epochs that a checkpoint has completed. Raises RecipeError if it is damaged."""
    with loaded_state(path) as state:
        return len(state["history"])


def check_recipe(path: Path, recipe: Recipe) -> None:
    """Raise RecipeError if a checkpoint is damaged, or was trained with another recipe.

    The last cycle may have more epochs than before: the training goes on.
    """
    with loaded_state(path) as state:
        old, new = state["recipe"], asdict(recipe)
        different = [name for name in new if old.get(name) != new[name]]
        *finished, last = old["cycles"]
    if different == ["cycles"] and list(recipe.cycles[:-1]) == finished and recipe.cycles[-1] > last:
        return
    if different:
        epochs = ",".join(map(str, old["cycles"]))
        raise RecipeError(
            f"{path} was trained with another recipe ({', '.join(different)}; --epochs {epochs}): choose "
            "another --out, or delete it to start over. Only the last number of --epochs can be raised"
        )


def check_inputs(path: Path, inputs: dict[str, str]) -> None:
    """Raise RecipeError if a checkpoint was trained with other files; older checkpoints do not say so."""
    with loaded_state(path) as state:
        old = state.get("inputs", inputs)
        different = [name for name in inputs if old[name] != inputs[name]]
    if different:
        raise RecipeError(
            f"{path} was trained with another {' and another '.join(different)}: use the same as before, "
            "choose another --out, or delete it to start over"
        )


def load_trained(path: Path) -> TrainedNetwork:
    """Load the trained network of a run, from its checkpoint or its folder.

    Raises RecipeError for a file that is not a checkpoint of this version.
    """
    path = path / CHECKPOINT if path.is_dir() else path
    with loaded_state(path) as state:
        mixes = {n: m and Mix(**m) for n, m in state["recipe"].items() if n in ("mix", "last_mix")}
        recipe = Recipe(**{**state["recipe"], **mixes})
        network = Network(_shape_after(recipe, state["history"]))
        network.load_state_dict(_mean(state["before"], state["average"], recipe.last_share))
        return TrainedNetwork(network.eval(), recipe, state["commit"])


def _mean(before: dict[str, Tensor] | None, after: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    """Return the mean of the weights of two networks, with a share of `after`; or only `after`."""
    if before is None:
        return after
    return {
        name: before[name].lerp(value, share) if value.is_floating_point() else value
        for name, value in after.items()
    }


def _shape_after(recipe: Recipe, history: History) -> Shape:
    """Return the network's shape in the last epoch of the history."""
    return recipe.shape_in(recipe.cycle(len(history) - 1)[0])
