"""Training: from a prepared corpus to a checkpoint. A run that was killed can be resumed.

`checkpoint.pt` is written after every epoch and contains all that is needed to resume: running the same
command again does so. `train.log`, `metrics.json` and `curves.png` are beside it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import multiprocessing
import os
import tempfile
import time
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
import torch.distributed as dist
from earmark_audio.progress import SILENT, Progress
from torch import Tensor, nn
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException, start_processes
from torchaudio.transforms import FrequencyMasking, TimeMasking

from earmark_training.data.examples import Batch, ExampleMaker, check_keywords
from earmark_training.data.features import feature_cache, hours_to_compute, phase_of
from earmark_training.errors import TrainingError, WorkerError
from earmark_training.model.checkpoint import (
    CHECKPOINT,
    check_inputs,
    check_recipe,
    history_length,
    resume,
    save,
)
from earmark_training.model.code_commit import code_commit
from earmark_training.model.learner import Learner
from earmark_training.model.network import Network
from earmark_training.model.precision import matrix_precision
from earmark_training.model.schedule import learning_rate_factor, update_average
from earmark_training.model.start import check_start, copy_network
from earmark_training.model.validation import batch_count, check_validation, classify_clips, validation_clips
from earmark_training.output_files import replace_file, writing
from earmark_training.processes import end_with_parent

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

    from earmark_audio.progress import Phase
    from torch.multiprocessing.spawn import ProcessContext

    from earmark_training.data.corpus import Corpus
    from earmark_training.data.features import FeatureCache
    from earmark_training.model.checkpoint import History
    from earmark_training.model.recipe import Recipe

log = logging.getLogger(__name__)

_TRAINING = "training"
_POLL_S = 0.2
# On two cores: an example in each of two processes, and the features of an hour. For the time left.
_EXAMPLE_S, _FEATURES_S_PER_HOUR = 0.012, 15.0

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


def train(
    corpus: Corpus, recipe: Recipe, out: Path, start: Path | None = None, *, progress: Progress = SILENT
) -> None:
    """Train by `recipe` into the folder `out`, or resume from its checkpoint.

    `start` is a model file whose network the training starts with, instead of a random one.
    Raises RecipeError if the checkpoint is of another recipe, corpus or `start`, there are no clips of a
    keyword, or `start` has a network of another shape; OutputError if
    a file cannot be written; WorkerError if one of its processes was killed.
    """
    out.mkdir(parents=True, exist_ok=True)
    clips = corpus.select("clip", "training")
    recipe = recipe.for_clips(len(clips))
    # Reject what cannot be trained before the features are computed, which takes minutes.
    check_keywords(recipe.keywords, (clip.text for clip in clips))
    check_validation(recipe.keywords, (clip.text for clip in corpus.select("clip", "validation")))
    inputs = {"corpus": _digest(corpus.folder / "index.json"), "--start": _digest(start) if start else ""}
    if (out / CHECKPOINT).is_file():
        check_recipe(out / CHECKPOINT, recipe)
        check_inputs(out / CHECKPOINT, inputs)
    if start is not None:
        check_start(start, recipe.shape_in(0))
    front_end = recipe.shape.front_end
    cycles = range(recipe.first_features, recipe.first_features + len(recipe.cycles))
    hours = {cycle: hours_to_compute(corpus, front_end, cycle) for cycle in cycles}
    expected_s = {phase_of(cycle): _FEATURES_S_PER_HOUR * h for cycle, h in hours.items() if h}
    progress.plan(
        expected_s | {_TRAINING: _EXAMPLE_S * recipe.mix.streams * recipe.epochs * recipe.steps_per_epoch}
    )
    caches = [feature_cache(corpus, front_end, cycle, progress=progress) for cycle in cycles]
    with tempfile.TemporaryDirectory() as folder:
        reader, writer = multiprocessing.get_context("spawn").Pipe(duplex=False)
        job = _Job(
            corpus, caches, recipe, out, Path(folder) / "rendezvous", code_commit(), writer, inputs, start
        )
        spawn = cast("Callable[..., ProcessContext]", start_processes)
        completed = history_length(out / CHECKPOINT) if (out / CHECKPOINT).is_file() else 0
        batches = recipe.steps_per_epoch + batch_count(corpus, recipe.labels)
        with progress.phase(
            _TRAINING, total=recipe.epochs * batches, unit="batches", initial=completed * batches
        ) as phase:
            processes = spawn(
                _train, (job,), nprocs=recipe.processes, join=False, daemon=True, start_method="spawn"
            )
            try:
                while not processes.join(timeout=_POLL_S):
                    _show(reader, phase)
            except (ProcessExitedException, ProcessRaisedException) as error:
                _show(reader, phase)  # raises the error that has ended the first process
                if isinstance(error, ProcessExitedException):
                    raise WorkerError from None
                raise
            _show(reader, phase)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _show(reader: Connection, phase: Phase) -> None:
    """Show what the first process reports: numbers of batches, and lines about epochs. Raise its error."""
    while reader.poll():
        report = reader.recv()
        if isinstance(report, Exception):
            raise report
        if isinstance(report, int):
            phase.update(report)
        else:
            log.info("%s", report)


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
    reports: Connection
    """Where the first process reports numbers of batches, lines about epochs, and the error that ends it."""
    inputs: dict[str, str]
    """The digests of the files that the training depends on, by name."""
    start: Path | None = None
    """The model file whose network the training starts with."""


def _train(rank: int, job: _Job) -> None:
    """Train in one of the processes, as `_train_part`, and report the error that ends the first one."""
    try:
        _train_part(rank, job)
    except (TrainingError, OSError) as error:
        if rank == 0:
            job.reports.send(error)
        raise


def _train_part(rank: int, job: _Job) -> None:
    """Train in one of `recipe.processes` processes, each on one core with a part of every batch.

    The gradients are averaged over the processes. The first process also updates the average of the weights,
    validates it, and writes the files.
    """
    recipe, out = job.recipe, job.out
    end_with_parent()
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
        cycle_start, cycle_steps = (n * recipe.steps_per_epoch for n in (epochs.start, len(epochs)))
        for step in range(epoch * recipe.steps_per_epoch, (epoch + 1) * recipe.steps_per_epoch):
            factor = learning_rate_factor(
                step - cycle_start, warmup_steps=recipe.warmup_steps, steps=cycle_steps
            )
            optimizer.param_groups[0]["lr"] = recipe.learning_rate_in(cycle) * factor
            batch = maker.batch((recipe.seed, step, rank))
            mel = _mask(network.normalize(batch.mel))
            with matrix_precision():
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
                job.reports.send(1)
        if rank == 0:
            accuracy = float(np.mean(classify_clips(average, clips, job.reports.send) == classes))
            history.append({"loss": total_loss / recipe.steps_per_epoch, "validation_accuracy": accuracy})
            _report(f"epoch {epoch + 1} of {recipe.epochs}", history[-1], started, job.reports)
            save(out / CHECKPOINT, learner, recipe, history, job.commit, inputs=job.inputs)
            _write_metrics(out, history)
    dist.destroy_process_group()
    # Exit without cleaning up: a thread of the group that frees a tensor during shutdown aborts the process.
    os._exit(0)


def _report(epoch: str, result: dict[str, float], started: float, reports: Connection) -> None:
    """Write the result of an epoch to the log, and to the process that shows the progress."""
    accuracy, seconds = result["validation_accuracy"], time.monotonic() - started
    line = f"{epoch}: loss {result['loss']:.4f}, validation accuracy {accuracy:.2%}, {seconds:.0f} s"
    log.info("%s", line)
    reports.send(line)


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
    replace_file(out / "metrics.json", json.dumps(metrics, indent=1).encode())
    _plot(history, out / "curves.png")


def _plot(history: History, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.5), layout="constrained")
    for axes, name in zip(figure.subplots(1, 2), ("loss", "validation_accuracy"), strict=True):
        axes.plot(range(1, len(history) + 1), [h[name] for h in history])
        axes.set(xlabel="epoch", title=name.replace("_", " "))
        axes.grid(alpha=0.3)
    with writing(path):
        figure.savefig(path)
