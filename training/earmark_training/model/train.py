"""Training: from a prepared corpus to a checkpoint, resumable after a kill.

Everything that the run needs to go on is in `checkpoint.pt`, written after every epoch; starting the same
command again goes on from there. Beside it: `train.log`, `metrics.json` and `curves.png`.
"""

from __future__ import annotations

import json
import logging
import math
import os
import pickle
import subprocess
import tempfile
import time
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import start_processes
from torchaudio.transforms import FrequencyMasking, TimeMasking
from tqdm import tqdm

from earmark_training.data.examples import Batch, ExampleMaker, Mix
from earmark_training.data.features import feature_bank
from earmark_training.errors import RecipeError
from earmark_training.model.network import Network
from earmark_training.model.recipe import Recipe
from earmark_training.model.schedule import follow, rate_at
from earmark_training.model.validation import classify_clips, validation_clips
from earmark_training.processes import end_with_parent

if TYPE_CHECKING:
    from collections.abc import Callable

    from earmark_training.data.corpus import Corpus
    from earmark_training.data.features import FeatureBank
    from earmark_training.model.network import Shape

log = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.pt"

_WINDOW_FRAMES = 25
"""Of an example's frames, the worst in every so many count as much as all of them."""


def loss(logits: Tensor, batch: Batch, answer_frames: int) -> Tensor:
    """Return the mean loss of a batch: logits (B, F, C) against the batch's marks.

    An answer counts by its class's mean probability over the answer's frames (multiple-instance: the
    network chooses its moment, more frames give more). Every frame counts by the probability of all
    classes that are allowed there: in each window the three worst frames as much as all together.
    """
    log_p = logits.float().log_softmax(-1)
    example, first, target = batch.answers.unbind(1)
    frames = first[:, None] + torch.arange(answer_frames)
    chosen = log_p[example[:, None], frames].logsumexp(1) - math.log(answer_frames)  # (N, C)
    answer = -chosen.gather(1, target[:, None]).sum()
    wrong = -log_p.masked_fill(~batch.allowed, -math.inf).logsumexp(-1)  # (B, F)
    windows = wrong.view(len(wrong), -1, _WINDOW_FRAMES)
    background = (windows.mean(2) + windows.topk(3, dim=2).values.mean(2)).sum() / 2
    return (answer + background) / windows.shape[:2].numel()


def train(corpus: Corpus, recipe: Recipe, out: Path) -> None:
    """Train by `recipe` into `out`, going on from its checkpoint if it has one."""
    out.mkdir(parents=True, exist_ok=True)
    if (out / CHECKPOINT).is_file():
        _check_recipe(out / CHECKPOINT, recipe)
    banks = [feature_bank(corpus, recipe.shape.front_end)]
    # What cannot be trained is refused here: not in another process, nor after the other banks.
    _example_maker(banks[0], recipe, 0)
    banks += [feature_bank(corpus, recipe.shape.front_end, cycle) for cycle in range(1, len(recipe.cycles))]
    with tempfile.TemporaryDirectory() as folder:
        job = _Job(corpus, banks, recipe, out, Path(folder) / "meeting", code_commit())
        start = cast("Callable[..., None]", start_processes)
        start(_train, (job,), nprocs=recipe.processes, start_method="spawn")


def _example_maker(bank: FeatureBank, recipe: Recipe, cycle: int) -> ExampleMaker:
    shape = recipe.shape_in(cycle)
    return ExampleMaker(bank, shape.front_end, shape.score_window, recipe.labels, recipe.mix)


@dataclass(frozen=True, slots=True)
class _Job:
    """What the processes of one run share."""

    corpus: Corpus
    banks: list[FeatureBank]
    """One for each cycle."""
    recipe: Recipe
    out: Path
    meeting: Path
    """The file by which they find one another."""
    commit: str
    """The code's, when they began: what is committed while they run is not what runs."""


class Learner:
    """A network while it learns, the average of its weights, and its optimizer."""

    def __init__(self, recipe: Recipe, shape: Shape) -> None:
        torch.manual_seed(recipe.seed)
        self.network = Network(shape)
        self.average = deepcopy(self.network).eval()
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
        )

    def grown(self, recipe: Recipe, shape: Shape) -> Learner:
        """Return a learner whose network has more blocks at its end, and says the same as before."""
        learner = Learner(recipe, shape)
        for mine, old in ((learner.network, self.network), (learner.average, self.average)):
            mine.load_state_dict({**mine.state_dict(), **old.state_dict()})
        return learner


def _train(rank: int, job: _Job) -> None:
    """Train in one of `recipe.processes` processes, each on one core with a part of every batch.

    Gradients are averaged between them. The first process also keeps the averaged network, validates, and
    writes.
    """
    recipe, out = job.recipe, job.out
    end_with_parent()
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{job.meeting}", rank=rank, world_size=recipe.processes)
    learner, history = _resume(out / CHECKPOINT, recipe) if (out / CHECKPOINT).is_file() else _begin(job)
    if rank == 0:
        _log_to(out / "train.log")
        log.info("%s; %d parameters", recipe, sum(p.numel() for p in Network(recipe.shape).parameters()))
        if history:
            log.info("going on after epoch %d", len(history))
        clips, classes = validation_clips(job.corpus, recipe.labels)
    makers = [_example_maker(bank, recipe, cycle) for cycle, bank in enumerate(job.banks)]
    for epoch in range(len(history), recipe.epochs):
        cycle, epochs = recipe.cycle(epoch)
        maker, shape = makers[cycle], recipe.shape_in(cycle)
        if learner.network.shape != shape:
            learner = learner.grown(recipe, shape)
        network, average, optimizer = learner.network, learner.average, learner.optimizer
        parameters = list(network.parameters())
        # The masks draw from torch's own generator: seeded by the epoch, a resumed run draws the same.
        torch.manual_seed((recipe.seed * 1000 + epoch) * recipe.processes + rank)
        started, total_loss = time.monotonic(), 0.0
        network.train()
        steps = range(epoch * recipe.steps_per_epoch, (epoch + 1) * recipe.steps_per_epoch)
        cycle_start, cycle_steps = (n * recipe.steps_per_epoch for n in (epochs.start, len(epochs)))
        for step in tqdm(steps, desc=f"epoch {epoch + 1}/{recipe.epochs}", unit="batch", disable=rank > 0):
            optimizer.param_groups[0]["lr"] = recipe.learning_rate * rate_at(
                step - cycle_start, warmup_steps=recipe.warmup_steps, steps=cycle_steps
            )
            batch = maker.batch((recipe.seed, step, rank))
            mel = _mask(network.normalize(batch.mel))
            with torch.autocast("cpu", torch.bfloat16):
                logits = network.logits(mel)
            batch_loss = loss(logits, batch, maker.answer_frames)
            optimizer.zero_grad()
            torch.autograd.backward(batch_loss)
            _share(parameters)
            nn.utils.clip_grad_norm_(parameters, 5.0)
            optimizer.step()
            total_loss += batch_loss.item()
            if rank == 0:
                follow(average, network, step, most=recipe.ema_decay)
        if rank == 0:
            accuracy = float(np.mean(classify_clips(average, clips) == classes))
            history.append({"loss": total_loss / recipe.steps_per_epoch, "validation_accuracy": accuracy})
            log.info(
                "epoch %d loss %.4f validation accuracy %.4f %.0f s",
                epoch + 1,
                history[-1]["loss"],
                accuracy,
                time.monotonic() - started,
            )
            _save(job, learner, history)
    dist.destroy_process_group()
    # The group's threads live on, and one that frees a tensor while the interpreter ends aborts the process.
    os._exit(0)


_MASKS = (*[FrequencyMasking(6, iid_masks=True)] * 2, *[TimeMasking(12, iid_masks=True)] * 4)


@torch.no_grad()
def _mask(mel: Tensor) -> Tensor:
    """Blank out some bands and moments of normalised log-mel (B, frames, mels): SpecAugment.

    Park et al. 2019, arXiv 1904.08779.
    """
    spectrum = mel.transpose(1, 2).unsqueeze(1)  # torchaudio's (B, 1, mels, time)
    for mask in _MASKS:
        spectrum = mask(spectrum)
    return spectrum.squeeze(1).transpose(1, 2)


def _share(parameters: list[nn.Parameter]) -> None:
    """Replace each process's gradients by the mean over all processes."""
    gradients = torch.cat([cast("Tensor", p.grad).flatten() for p in parameters])
    dist.all_reduce(gradients)
    gradients /= dist.get_world_size()
    for p, gradient in zip(parameters, torch.split(gradients, [p.numel() for p in parameters]), strict=True):
        cast("Tensor", p.grad).copy_(gradient.view_as(p))


def _log_to(path: Path) -> None:
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)


def _save(job: _Job, learner: Learner, history: list[dict[str, float]]) -> None:
    out = job.out
    state = {
        "recipe": asdict(job.recipe),
        "network": learner.network.state_dict(),
        "average": learner.average.state_dict(),
        "optimizer": learner.optimizer.state_dict(),
        "history": history,
        "commit": job.commit,
    }
    torch.save(state, out / (CHECKPOINT + ".new"))
    os.replace(out / (CHECKPOINT + ".new"), out / CHECKPOINT)
    metrics = {"epochs": len(history), **history[-1], "history": history}
    (out / "metrics.json").write_text(json.dumps(metrics, indent=1))
    _plot(history, out / "curves.png")


def code_commit() -> str:
    """Return this code's commit, marked if changed since; outside a checkout EARMARK_COMMIT or `unknown`."""
    git = [
        "git",
        "-C",
        str(Path(__file__).parent),
        "describe",
        "--always",
        "--abbrev=12",
        "--dirty",
        "--match=",
    ]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("EARMARK_COMMIT", "unknown")


def _check_recipe(path: Path, recipe: Recipe) -> None:
    if torch.load(path, weights_only=True)["recipe"] != asdict(recipe):
        raise RecipeError(
            f"{path} was trained with another recipe: choose another --out, or delete it to begin anew"
        )


def _begin(job: _Job) -> tuple[Learner, list[dict[str, float]]]:
    """Return a learner that has learnt nothing yet but how loud each band is, and its empty history."""
    learner = Learner(job.recipe, job.recipe.shape_in(0))
    mean, deviation = job.banks[0].statistics()
    for network in (learner.network, learner.average):
        network.mel_mean.copy_(torch.from_numpy(mean))
        network.mel_scale.copy_(torch.from_numpy(1 / deviation))
    return learner, []


def _resume(path: Path, recipe: Recipe) -> tuple[Learner, list[dict[str, float]]]:
    """Return the learner that a checkpoint has, and its history."""
    state = torch.load(path, weights_only=True)
    history = cast("list[dict[str, float]]", state["history"])
    learner = Learner(recipe, _reached(recipe, history))
    learner.network.load_state_dict(state["network"])
    learner.average.load_state_dict(state["average"])
    learner.optimizer.load_state_dict(state["optimizer"])
    return learner, history


def _reached(recipe: Recipe, history: list[dict[str, float]]) -> Shape:
    """Return the shape of the network of the last epoch in the history."""
    return recipe.shape_in(recipe.cycle(len(history) - 1)[0])


@dataclass(frozen=True, slots=True)
class Trained:
    """What a run produced: the averaged network, its recipe, and the commit of the code that trained it."""

    network: Network
    recipe: Recipe
    commit: str


def load_trained(path: Path) -> Trained:
    """Load a run's checkpoint: the file, or the folder that holds it. Raises RecipeError for another file."""
    path = path / CHECKPOINT if path.is_dir() else path
    try:
        state = torch.load(path, weights_only=True)
        recipe = Recipe(**{**state["recipe"], "mix": Mix(**state["recipe"]["mix"])})
        network = Network(_reached(recipe, state["history"]))
        network.load_state_dict(state["average"])
    except (pickle.UnpicklingError, EOFError, KeyError, RuntimeError, TypeError) as error:
        raise RecipeError(f"{path} is no checkpoint of a training by this version of Earmark") from error
    return Trained(network.eval(), recipe, state["commit"])


def _plot(history: list[dict[str, float]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.5), layout="constrained")
    for axes, name in zip(figure.subplots(1, 2), ("loss", "validation_accuracy"), strict=True):
        axes.plot(range(1, len(history) + 1), [h[name] for h in history])
        axes.set(xlabel="epoch", title=name.replace("_", " "))
        axes.grid(alpha=0.3)
    figure.savefig(path)
