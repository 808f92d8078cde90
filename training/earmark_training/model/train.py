"""Training: from a prepared corpus to a checkpoint. A run that was killed can be resumed.

`checkpoint.pt` is written after every epoch and contains all that is needed to resume: running the same
command again does so. `train.log`, `metrics.json` and `curves.png` are beside it.
"""

from __future__ import annotations

import json
import logging
import math
import os
import tempfile
import threading
import time
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import start_processes
from torchaudio.transforms import FrequencyMasking, TimeMasking
from tqdm import tqdm

from earmark_training.data.examples import Batch, ExampleMaker, check_keywords
from earmark_training.data.features import feature_cache
from earmark_training.model.checkpoint import CHECKPOINT, check_recipe, resume, save
from earmark_training.model.code_commit import code_commit
from earmark_training.model.learner import Learner
from earmark_training.model.network import Network
from earmark_training.model.schedule import learning_rate_factor, update_average
from earmark_training.model.start import check_start, copy_network
from earmark_training.model.validation import check_validation, classify_clips, validation_clips
from earmark_training.processes import end_with_parent

if TYPE_CHECKING:
    from collections.abc import Callable

    from earmark_training.data.corpus import Corpus
    from earmark_training.data.features import FeatureCache
    from earmark_training.model.checkpoint import History
    from earmark_training.model.recipe import Recipe

log = logging.getLogger(__name__)

_WINDOW_FRAMES = 25
"""The worst three frames in each window of this length weigh as much as all its frames."""


def loss(logits: Tensor, batch: Batch, target_frames: int) -> Tensor:
    """Return the mean loss of a batch for logits (B, F, C).

    A target contributes the negative log of its class's mean probability over the target frames
    (multiple-instance learning: the network chooses the frame). Every frame contributes the negative log of
    the probability of all classes that are allowed there; in each window the worst three frames weigh as much
    as all frames together.
    """
    log_p = logits.float().log_softmax(-1)
    example, first, target = batch.targets.unbind(1)
    frames = first[:, None] + torch.arange(target_frames)
    mean_log_p = log_p[example[:, None], frames].logsumexp(1) - math.log(target_frames)  # (N, C)
    target_loss = -mean_log_p.gather(1, target[:, None]).sum()
    frame_loss = -log_p.masked_fill(~batch.allowed, -math.inf).logsumexp(-1)  # (B, F)
    windows = frame_loss.view(len(frame_loss), -1, _WINDOW_FRAMES)
    background_loss = (windows.mean(2) + windows.topk(3, dim=2).values.mean(2)).sum() / 2
    return (target_loss + background_loss) / windows.shape[:2].numel()


def train(corpus: Corpus, recipe: Recipe, out: Path, start: Path | None = None) -> None:
    """Train by `recipe` into the folder `out`, or resume from its checkpoint.

    `start` is a model file whose network the training starts with, instead of a random one.
    Raises RecipeError if the checkpoint is of another recipe, there are no clips of a keyword, or `start` has
    a network of another shape.
    """
    out.mkdir(parents=True, exist_ok=True)
    # Reject what cannot be trained before the features are computed, which takes minutes.
    check_keywords(recipe.keywords, (clip.text for clip in corpus.select("clip", "training")))
    check_validation(recipe.keywords, (clip.text for clip in corpus.select("clip", "validation")))
    if (out / CHECKPOINT).is_file():
        check_recipe(out / CHECKPOINT, recipe)
    if start is not None:
        check_start(start, recipe.shape_in(0))
    first = recipe.first_features
    caches = [feature_cache(corpus, recipe.shape.front_end, first)]
    # Reject data that cannot be trained on before the other features are computed and processes are started.
    _example_maker(caches[0], recipe, 0)
    later = range(first + 1, first + len(recipe.cycles))
    caches += [feature_cache(corpus, recipe.shape.front_end, cycle) for cycle in later]
    with tempfile.TemporaryDirectory() as folder:
        job = _Job(corpus, caches, recipe, out, Path(folder) / "rendezvous", code_commit(), start)
        spawn = cast("Callable[..., None]", start_processes)
        spawn(_train, (job,), nprocs=recipe.processes, start_method="spawn")


def _example_maker(cache: FeatureCache, recipe: Recipe, cycle: int) -> ExampleMaker:
    shape = recipe.shape_in(cycle)
    return ExampleMaker(cache, shape.front_end, shape.score_window, recipe.labels, recipe.mix_in(cycle))


@dataclass(frozen=True, slots=True)
class _Job:
    """The settings that the processes of one run share."""

    corpus: Corpus
    caches: list[FeatureCache]
    """The features of each cycle."""
    recipe: Recipe
    out: Path
    rendezvous: Path
    """The file through which the processes form a group."""
    commit: str
    """The commit of the code when the run started, whatever is committed while it runs."""
    start: Path | None = None
    """The model file whose network the training starts with."""


def _train(rank: int, job: _Job) -> None:
    """Train in one of `recipe.processes` processes, each on one core with a part of every batch.

    The gradients are averaged over the processes. The first process also updates the average of the weights,
    validates it, and writes the files.
    """
    recipe, out = job.recipe, job.out
    end_with_parent()
    # Only one process draws a bar. The default lock is a semaphore, which a process that is ended leaks.
    tqdm.set_lock(threading.RLock())
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{job.rendezvous}", rank=rank, world_size=recipe.processes)
    learner, history = resume(out / CHECKPOINT, recipe) if (out / CHECKPOINT).is_file() else _start(job)
    if rank == 0:
        _log_to(out / "train.log")
        log.info("%s; %d parameters", recipe, sum(p.numel() for p in Network(recipe.shape).parameters()))
        if history:
            log.info("resuming after epoch %d", len(history))
        clips, classes = validation_clips(job.corpus, recipe.labels)
    makers = [_example_maker(cache, recipe, cycle) for cycle, cache in enumerate(job.caches)]
    for epoch in range(len(history), recipe.epochs):
        cycle, epochs = recipe.cycle(epoch)
        maker, shape = makers[cycle], recipe.shape_in(cycle)
        if learner.network.shape != shape:
            learner = learner.grown(recipe, shape)
        if recipe.last_share < 1 and recipe.is_last(cycle) and learner.before is None:
            learner.before = deepcopy(learner.average.state_dict())
        network, average, optimizer = learner.network, learner.average, learner.optimizer
        parameters = list(network.parameters())
        # The masks are drawn from torch's global generator; seeded by epoch, a resumed run draws the same.
        torch.manual_seed((recipe.seed * 1000 + epoch) * recipe.processes + rank)
        started, total_loss = time.monotonic(), 0.0
        network.train()
        steps = range(epoch * recipe.steps_per_epoch, (epoch + 1) * recipe.steps_per_epoch)
        cycle_start, cycle_steps = (n * recipe.steps_per_epoch for n in (epochs.start, len(epochs)))
        for step in tqdm(steps, desc=f"epoch {epoch + 1}/{recipe.epochs}", unit="batch", disable=rank > 0):
            factor = learning_rate_factor(
                step - cycle_start, warmup_steps=recipe.warmup_steps, steps=cycle_steps
            )
            optimizer.param_groups[0]["lr"] = recipe.learning_rate_in(cycle) * factor
            batch = maker.batch((recipe.seed, step, rank))
            mel = _mask(network.normalize(batch.mel))
            with torch.autocast("cpu", torch.bfloat16):
                logits = network.logits(mel)
            batch_loss = loss(logits, batch, maker.target_frames)
            optimizer.zero_grad()
            torch.autograd.backward(batch_loss)
            _average_gradients(parameters)
            nn.utils.clip_grad_norm_(parameters, 5.0)
            optimizer.step()
            total_loss += batch_loss.item()
            if rank == 0:
                update_average(average, network, step, max_decay=recipe.ema_decay_in(cycle))
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
            save(out / CHECKPOINT, learner, recipe, history, job.commit)
            _write_metrics(out, history)
    dist.destroy_process_group()
    # Exit without cleaning up: a thread of the group that frees a tensor during shutdown aborts the process.
    os._exit(0)


_MASKS = (*[FrequencyMasking(6, iid_masks=True)] * 2, *[TimeMasking(12, iid_masks=True)] * 4)


@torch.no_grad()
def _mask(mel: Tensor) -> Tensor:
    """Mask random bands and times of normalised log-mel (B, frames, mels).

    SpecAugment: Park et al. 2019, arXiv 1904.08779.
    """
    spectrum = mel.transpose(1, 2).unsqueeze(1)  # torchaudio's (B, 1, mels, time)
    for mask in _MASKS:
        spectrum = mask(spectrum)
    return spectrum.squeeze(1).transpose(1, 2)


def _average_gradients(parameters: list[nn.Parameter]) -> None:
    """Replace the gradients in each process by the mean over all processes."""
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


def _start(job: _Job) -> tuple[Learner, History]:
    """Return a new learner and an empty history.

    Its network is random, with its input normalised to the training data, or that of a model file.
    """
    learner = Learner(job.recipe, job.recipe.shape_in(0))
    if job.start is None:
        learner.set_normalization(*job.caches[0].statistics())
    else:
        examples = _example_maker(job.caches[0], job.recipe, 0)
        copy_network(job.start, learner.network, job.recipe.labels, examples)
        learner.average.load_state_dict(learner.network.state_dict())
    return learner, []


def _write_metrics(out: Path, history: History) -> None:
    metrics = {"epochs": len(history), **history[-1], "history": history}
    (out / "metrics.json").write_text(json.dumps(metrics, indent=1))
    _plot(history, out / "curves.png")


def _plot(history: History, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.5), layout="constrained")
    for axes, name in zip(figure.subplots(1, 2), ("loss", "validation_accuracy"), strict=True):
        axes.plot(range(1, len(history) + 1), [h[name] for h in history])
        axes.set(xlabel="epoch", title=name.replace("_", " "))
        axes.grid(alpha=0.3)
    figure.savefig(path)
