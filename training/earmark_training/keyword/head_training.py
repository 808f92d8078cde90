"""Train the head of an embedding network: every example is embedded once, and used many times.

The embeddings of all examples so far are the memory that the batches are drawn from. Between rounds, the
training speech is scored, and the places with the highest scores become negative examples, as in `fine_tune`.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor, nn

from earmark_training.keyword.examples import KeywordBatch, KeywordExampleMaker, KeywordMix
from earmark_training.keyword.fine_tune import (
    FIRST_KEYWORD,
    FineTuneRecipe,
    loss,
    mine_hard_negatives,
    sample_speech,
    work,
)
from earmark_training.keyword.mel_variation import vary_mel
from earmark_training.model.checkpoint import loaded_state, write_state
from earmark_training.model.precision import matrix_precision
from earmark_training.model.schedule import learning_rate_factor, update_average
from earmark_training.model.speech_embedding import EmbeddingNetwork

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from earmark_training.keyword.examples import HardNegative
    from earmark_training.keyword.training_set import TrainingSet

_UPDATES = 5
"""Updates of the weights for each batch that is embedded."""

_BATCH = 128
_NOISE = 0.15  # added to normalised embeddings
_CHECKPOINT_STEPS = 20


def head_recipe(seed: int) -> FineTuneRecipe:
    """Return the recipe for a head: fewer batches than for a body, since each one is used many times."""
    return FineTuneRecipe(
        steps=160,
        learning_rate=2e-3,
        weight_decay=0.02,
        ema_decay=0.99,
        seed=seed,
        mix=KeywordMix(confusable=0.15),
    )


def train_head(
    network: EmbeddingNetwork,
    training_set: TrainingSet,
    recipe: FineTuneRecipe,
    *,
    checkpoint: Path | None = None,
    count: Callable[[float], object] = lambda _: None,
    skip: Callable[[float], object] = lambda _: None,
) -> EmbeddingNetwork:
    """Return a network with a new head for the keywords, the average of the weights.

    The state of the training is kept in the file `checkpoint`, if given, and it continues from there. `count`
    is called with the work that was done, as by `fine_tune`, and `skip` with that before the checkpoint.
    """
    torch.manual_seed(recipe.seed)
    classes, helpers = FIRST_KEYWORD + len(training_set.keywords), len(training_set.helper_words)
    trained = EmbeddingNetwork(replace(network.shape, classes=classes, helpers=helpers))
    with torch.no_grad():  # a keyword starts as unlikely
        cast("Tensor", trained.head.bias)[FIRST_KEYWORD:] = -2.0
    training = _Training(trained, recipe)
    hard_negatives: list[HardNegative] = []
    maker = KeywordExampleMaker(training_set, trained.shape, recipe.mix, seed=recipe.seed)
    first = 0
    if checkpoint and checkpoint.is_file():
        first, hard_negatives = training.restore(checkpoint, training_set)
        skip(work(training_set, recipe, before=first))
    for step in range(first, recipe.steps):
        if step and step % recipe.round_steps == 0:
            speech = sample_speech(training_set.speech, recipe.mined_hours, seed=recipe.seed + step)
            new = mine_hard_negatives(
                training.average,
                training_set,
                speech,
                recipe.hard_negatives,
                seed=recipe.seed + step,
                count=count,
            )
            hard_negatives = new + hard_negatives[: recipe.hard_negatives // 2]
        training.embed(maker.batch(step, hard_negatives), step)
        for update in range(_UPDATES):
            training.update(_UPDATES * step + update)
        if checkpoint and (step + 1) % _CHECKPOINT_STEPS == 0:
            training.save(checkpoint, step + 1, training_set, hard_negatives)
        count(1)
    return training.average.eval()


class _Training:
    """The network in training, the average of its weights, and the embeddings of the examples so far."""

    def __init__(self, network: EmbeddingNetwork, recipe: FineTuneRecipe) -> None:
        self.network, self.average, self._recipe = network.train(), deepcopy(network).eval(), recipe
        self._optimizer = torch.optim.AdamW(
            network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
        )
        self._memory: list[list[Tensor]] = [[], [], [], []]

    @torch.no_grad()
    def embed(self, batch: KeywordBatch, step: int) -> None:
        """Add the embeddings of a batch, in varied voices, to the memory."""
        rng = np.random.default_rng((self._recipe.seed, step))
        mel = vary_mel(rng, self.network.embedding.log_mel(batch.pcm))
        with matrix_precision():
            embeddings, _ = self.network.embedding(mel)
        for stored, new in zip(
            self._memory, (embeddings.half(), batch.keyword, batch.target, batch.background), strict=True
        ):
            stored.append(new)

    def update(self, number: int) -> None:
        """Make one step of the optimizer, on examples drawn from the memory."""
        recipe = self._recipe
        rng = np.random.default_rng((recipe.seed, 3, number))
        size = len(self._memory[0][0])
        places = rng.integers(len(self._memory[0]) * size, size=_BATCH).tolist()
        pcm, *masks = (torch.stack([m[i // size][i % size] for i in places]) for m in self._memory)
        embeddings = pcm.float()
        noise = torch.from_numpy(rng.standard_normal(embeddings.shape, np.float32))
        steps = _UPDATES * recipe.steps
        for group in self._optimizer.param_groups:
            group["lr"] = recipe.learning_rate * learning_rate_factor(
                number, warmup_steps=recipe.warmup_steps, steps=steps
            )
        batch_loss = loss(
            self.network.logits(embeddings + _NOISE * noise),
            KeywordBatch(embeddings, *masks),
            recipe.label_smoothing,
        )
        self._optimizer.zero_grad()
        torch.autograd.backward(batch_loss)
        nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self._optimizer.step()
        update_average(self.average, self.network, number, max_decay=recipe.ema_decay)

    def save(
        self, file: Path, step: int, training_set: TrainingSet, hard_negatives: Sequence[HardNegative]
    ) -> None:
        """Write all that the next steps depend on."""
        places = {r: i for i, r in enumerate(training_set.speech)}
        state = {
            "step": step,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "random": torch.get_rng_state(),
            "memory": self._memory,
            "hard_negatives": [(places[r], end) for r, end in hard_negatives if r in places],
        }
        write_state(file, state)

    def restore(self, file: Path, training_set: TrainingSet) -> tuple[int, list[HardNegative]]:
        """Read what `save` wrote; return the next step and the hard negatives.

        Raises RecipeError if the file is damaged.
        """
        with loaded_state(file) as state:
            self.network.load_state_dict(state["network"])
            self.average.load_state_dict(state["average"])
            self._optimizer.load_state_dict(state["optimizer"])
            torch.set_rng_state(state["random"])
            self._memory = state["memory"]
            return state["step"], [(training_set.speech[i], end) for i, end in state["hard_negatives"]]
