"""Training: from a prepared corpus to a checkpoint, resumable after a kill.

Everything that the run needs to go on is in `checkpoint.pt`, written after every epoch; starting the same
command again goes on from there. Beside it: `train.log`, `metrics.json` and `curves.png`.
"""

from __future__ import annotations

import json
import logging
import math
import os
import subprocess
import time
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from earmark_spotter import ClipClassifier
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchaudio.transforms import FrequencyMasking, TimeMasking
from tqdm import tqdm

from earmark_training.corpus import SAMPLE_RATE_HZ, Corpus
from earmark_training.errors import RecipeError
from earmark_training.examples import Batch, ExampleMaker, Mix
from earmark_training.network import Network, Shape
from earmark_training.vocabulary import DEFAULT_KEYWORDS, SILENCE, UNKNOWN, labels_for

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to train. `PRESETS` has the named ones."""

    keywords: tuple[str, ...] = DEFAULT_KEYWORDS
    channels: int = 128
    kernel: int = 7
    dilations: tuple[int, ...] = (1, 1, 1, 2, 2, 2)
    epochs: int = 29
    learning_rate: float = 3e-3
    weight_decay: float = 0.02
    warmup_steps: int = 500
    ema_decay: float = 0.999
    label_smoothing: float = 0.05
    seed: int = 1
    mix: Mix = field(default_factory=Mix)

    @property
    def labels(self) -> tuple[str, ...]:
        """The model's classes in their order."""
        return labels_for(self.keywords)

    @property
    def shape(self) -> Shape:
        """The network's shape."""
        return Shape(len(self.labels), channels=self.channels, kernel=self.kernel, dilations=self.dilations)


PRESETS = {
    "default": Recipe(),
    "quick": Recipe(channels=64, dilations=(1, 2, 3, 3), epochs=3, warmup_steps=100, ema_decay=0.98),
}


class _Batches(Dataset[Batch]):
    """The batches of a run, by number; made in the loader's own process."""

    def __init__(self, maker: ExampleMaker, steps: range) -> None:
        self._maker, self._steps = maker, steps

    def __len__(self) -> int:
        return len(self._steps)

    def __getitem__(self, index: int) -> Batch:
        torch.set_num_threads(1)
        return self._maker.batch(self._steps[index])


def loss(logits: Tensor, batch: Batch, label_smoothing: float) -> Tensor:
    """Return the mean loss of a batch: logits (B, F, C) against the batch's masks.

    An answer counts by the target's mean probability over the answer frames (multiple-instance: the
    network chooses its moment, more frames give more); a background frame by the probability of all
    classes that are allowed there, its three worst frames as much as all together.
    """
    log_p = logits.log_softmax(-1)
    answers = batch.answer.any(1)
    inside = batch.answer[answers]  # (A, F)
    chosen = log_p[answers].masked_fill(~inside[..., None], -math.inf).logsumexp(1)  # (A, C)
    chosen = chosen - inside.sum(1, keepdim=True).log()
    answer = nn.functional.nll_loss(chosen, batch.target[answers], reduction="sum") * (1 - label_smoothing)
    answer = answer - label_smoothing * chosen.mean(-1).sum()
    wrong = -log_p.masked_fill(~batch.allowed[:, None], -math.inf).logsumexp(-1)  # (B, F)
    wrong = torch.where(batch.background, wrong, 0.0)
    mean = wrong.sum(1) / batch.background.sum(1).clamp(min=1)
    background = (mean + wrong.topk(3, dim=1).values.mean(1)).sum() / 2
    return (answer + background) / len(logits)


@torch.no_grad()
def classify_clips(network: Network, clips: list[np.ndarray[Any, np.dtype[np.float32]]]) -> list[int]:
    """Return each clip's class, found as the spotter's `classify` does."""
    frame = network.shape.frame_samples
    tail = SAMPLE_RATE_HZ * 2 // 5
    found = []
    for i in range(0, len(clips), 128):
        part = clips[i : i + 128]
        length = -(-(max(map(len, part)) + tail) // frame) * frame
        pcm = np.stack([np.pad(clip, (0, length - len(clip))) for clip in part])
        scores, _ = network(torch.from_numpy(pcm), network.silent_state().expand(len(part), -1))
        for one in scores.numpy():
            keywords = range(2, network.shape.classes)  # after silence and unknown: see labels_for
            classifier = ClipClassifier(network.shape.classes, keywords, 0, 1000 * frame / SAMPLE_RATE_HZ)
            classifier.push(one)
            found.append(int(classifier.scores.argmax()))
    return found


def validation_clips(
    corpus: Corpus, labels: tuple[str, ...]
) -> tuple[list[np.ndarray[Any, np.dtype[np.float32]]], np.ndarray[Any, Any]]:
    """Return the validation clips with their classes, and as much noise as an average class has clips."""
    index = {label: i for i, label in enumerate(labels)}
    words = corpus.select("clip", "validation")
    clips = [corpus.samples(w) for w in words]
    classes = [index.get(w.text, index[UNKNOWN]) for w in words]
    noises = corpus.select("noise", "validation")
    rng = np.random.default_rng(0)
    for i in range(len(words) // len(labels)):
        noise = noises[i % len(noises)]
        cut = int(rng.integers(max(1, noise.length - SAMPLE_RATE_HZ)))
        clips.append(
            corpus.samples(replace(noise, start=noise.start + cut, length=min(SAMPLE_RATE_HZ, noise.length)))
        )
        classes.append(index[SILENCE])
    return clips, np.array(classes)


def train(corpus: Corpus, recipe: Recipe, out: Path, *, progress: Callable[..., Any] = tqdm) -> Network:
    """Train by `recipe` into `out`, from its checkpoint if it has one; return the averaged network."""
    out.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(out / "train.log")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        return _train(corpus, recipe, out, progress)
    finally:
        log.removeHandler(handler)
        handler.close()


def _train(corpus: Corpus, recipe: Recipe, out: Path, progress: Callable[..., Any]) -> Network:
    torch.manual_seed(recipe.seed)
    network = Network(recipe.shape)
    average = deepcopy(network).eval()
    maker = ExampleMaker(corpus, recipe.shape, recipe.labels, recipe.mix, seed=recipe.seed)
    per_epoch = maker.steps_per_epoch
    total = per_epoch * recipe.epochs
    optimizer = torch.optim.AdamW(
        network.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: (
            min(1.0, (step + 1) / recipe.warmup_steps)
            * (0.5 + 0.5 * math.cos(math.pi * min(1, step / total)))
        ),
    )
    history: list[dict[str, float]] = []
    if (out / CHECKPOINT).is_file():
        history = _resume(out / CHECKPOINT, recipe, network, average, optimizer, schedule)
        log.info("resuming after epoch %d of %d", len(history), recipe.epochs)
    log.info(
        "%s; %d parameters, %d steps an epoch",
        recipe,
        sum(p.numel() for p in network.parameters()),
        per_epoch,
    )
    masks = [
        FrequencyMasking(6, iid_masks=True),
        FrequencyMasking(6, iid_masks=True),
        TimeMasking(12, iid_masks=True),
    ]
    clips, classes = validation_clips(corpus, recipe.labels)
    steps = range(len(history) * per_epoch, total)
    batches = iter(
        DataLoader(
            _Batches(maker, steps),
            batch_size=None,
            num_workers=1,
            prefetch_factor=4,
            multiprocessing_context="spawn",
        )
    )
    for epoch in range(len(history), recipe.epochs):
        # The masks draw from torch's own generator: seeded by the epoch, a resumed run draws the same.
        torch.manual_seed(recipe.seed * 1000 + epoch)
        started, total_loss = time.monotonic(), 0.0
        network.train()
        of_epoch = islice(batches, per_epoch)
        bar = progress(of_epoch, desc=f"epoch {epoch + 1}/{recipe.epochs}", unit="batch", total=per_epoch)
        for step, batch in enumerate(bar, epoch * per_epoch):
            with torch.no_grad():
                mel = network.normalize(network.log_mel(batch.pcm))
                spectrum = mel.transpose(1, 2).unsqueeze(1)  # torchaudio's (B, 1, mels, time)
                for mask in masks:
                    spectrum = mask(spectrum)
                mel = spectrum.squeeze(1).transpose(1, 2)
            batch_loss = loss(network.logits(mel), batch, recipe.label_smoothing)
            optimizer.zero_grad()
            torch.autograd.backward(batch_loss)
            nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            optimizer.step()
            schedule.step()
            _follow(average, network, min(recipe.ema_decay, (step + 1) / (step + 10)))
            total_loss += batch_loss.item()
        accuracy = float(np.mean(classify_clips(average, clips) == classes))
        history.append({"loss": total_loss / per_epoch, "validation_accuracy": accuracy})
        log.info(
            "epoch %d loss %.4f validation accuracy %.4f %.0f s",
            epoch + 1,
            history[-1]["loss"],
            accuracy,
            time.monotonic() - started,
        )
        _save(out, recipe, network, average, optimizer, schedule, history)
    return average


@torch.no_grad()
def _follow(average: Network, network: Network, decay: float) -> None:
    """Move the average of the weights a little towards the network; counters are taken as they are."""
    values = network.state_dict()
    for name, mean in average.state_dict().items():
        if mean.is_floating_point():
            mean.lerp_(values[name], 1 - decay)
        else:
            mean.copy_(values[name])


def _save(out: Path, recipe: Recipe, *parts: Any) -> None:
    network, average, optimizer, schedule, history = parts
    state = {
        "recipe": asdict(recipe),
        "network": network.state_dict(),
        "average": average.state_dict(),
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict(),
        "history": history,
        "commit": _commit(),
    }
    torch.save(state, out / (CHECKPOINT + ".new"))
    os.replace(out / (CHECKPOINT + ".new"), out / CHECKPOINT)
    metrics = {"epochs": len(history), **history[-1], "history": history}
    (out / "metrics.json").write_text(json.dumps(metrics, indent=1))
    _plot(history, out / "curves.png")


def _commit() -> str:
    """Return this code's commit, marked if it was changed since; `unknown` outside a checkout."""
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
        return "unknown"


def _resume(
    path: Path, recipe: Recipe, network: Network, average: Network, *others: Any
) -> list[dict[str, float]]:
    state = torch.load(path, weights_only=True)
    if state["recipe"] != asdict(recipe):
        raise RecipeError(
            f"{path} was trained with another recipe: choose another --out, or delete it to begin anew"
        )
    network.load_state_dict(state["network"])
    average.load_state_dict(state["average"])
    for other, name in zip(others, ("optimizer", "schedule"), strict=True):
        other.load_state_dict(state[name])
    return cast("list[dict[str, float]]", state["history"])


@dataclass(frozen=True, slots=True)
class Trained:
    """What a run produced: the averaged network, its recipe, and the commit of the code that trained it."""

    network: Network
    recipe: Recipe
    commit: str


def load_trained(path: Path) -> Trained:
    """Load a run's checkpoint: the file, or the folder that holds it."""
    path = path / CHECKPOINT if path.is_dir() else path
    state = torch.load(path, weights_only=True)
    recipe = Recipe(**{**state["recipe"], "mix": Mix(**state["recipe"]["mix"])})
    network = Network(recipe.shape)
    network.load_state_dict(state["average"])
    return Trained(network.eval(), recipe, state["commit"])


def _plot(history: list[dict[str, float]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.5), layout="constrained")
    for axes, name in zip(figure.subplots(1, 2), ("loss", "validation_accuracy"), strict=True):
        axes.plot(range(1, len(history) + 1), [h[name] for h in history])
        axes.set(xlabel="epoch", title=name.replace("_", " "))
        axes.grid(alpha=0.3)
    figure.savefig(path)
