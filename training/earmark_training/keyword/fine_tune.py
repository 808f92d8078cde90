"""Tuning: the shipped network's body, a new head, and a few hundred batches.

The body learns on gently, at a fraction of the head's learning rate. Between rounds the speech that it is
tuned on is listened to, and the places that sound most like the keyword to it become examples.
"""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from earmark_training.data.corpus import SAMPLE_RATE_HZ
from earmark_training.keyword.examples import ExampleMaker, Mix
from earmark_training.model.network import Pointwise
from earmark_training.model.schedule import follow, rate_at

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from earmark_training.data.corpus import Corpus, Recording
    from earmark_training.keyword.examples import Batch, Mined
    from earmark_training.keyword.material import Material
    from earmark_training.model.network import Network

KEYWORD = 2
"""The keyword's place among a tuned network's classes, after silence and unknown."""


_WORST_FRAMES = 4
_MINED_FROM_ONE, _LIKE_THE_KEYWORD = 3, 0.05


@dataclass(frozen=True, slots=True)
class Tuning:
    """How to tune."""

    steps: int = 400
    learning_rate: float = 1e-3
    body_rate: float = 0.2
    weight_decay: float = 0.01
    warmup_steps: int = 30
    ema_decay: float = 0.98
    label_smoothing: float = 0.05
    rounds: int = 3
    mined: int = 300
    mined_hours: float = 2.0
    seed: int = 1
    mix: Mix = field(default_factory=Mix)


def with_new_head(network: Network) -> Network:
    """Return a copy of the network whose classes are silence, unknown and one keyword that it must learn.

    Batch normalisation is folded into its layers, and stays as it is.
    """
    tuned = network.folded()
    tuned.shape = replace(network.shape, classes=3)
    weight, bias = network.head.weight, cast("Tensor", network.head.bias)
    tuned.head = Pointwise(weight.shape[0], 3, normalized=False)
    with torch.no_grad():
        # The keyword begins as a rarer kind of unknown speech.
        tuned.head.weight.copy_(weight[:, [0, 1, 1]])
        cast("Tensor", tuned.head.bias).copy_(bias[[0, 1, 1]] - torch.tensor([0.0, 0.0, 2.0]))
    return tuned


def tune(
    network: Network, material: Material, tuning: Tuning, *, progress: Callable[..., Any] = tqdm
) -> Network:
    """Return a copy of the network, tuned to the keyword, ready to be exported."""
    torch.manual_seed(tuning.seed)
    tuned = with_new_head(network)
    average = deepcopy(tuned)
    tuned.train()
    maker = ExampleMaker(material, tuned.shape, tuning.mix, seed=tuning.seed)
    head = list(tuned.head.parameters())
    body = [p for name, p in tuned.named_parameters() if not name.startswith("head.")]
    optimizer = torch.optim.AdamW(
        [
            {"params": head, "lr": tuning.learning_rate},
            {"params": body, "lr": tuning.learning_rate * tuning.body_rate},
        ],
        weight_decay=tuning.weight_decay,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, partial(rate_at, warmup_steps=tuning.warmup_steps, steps=tuning.steps)
    )
    mined: list[Mined] = []
    round_steps = math.ceil(tuning.steps / (tuning.rounds + 1))
    for step in progress(range(tuning.steps), desc="tuning", unit="batch"):
        if step and step % round_steps == 0:
            some = _hours_of(material.speech, tuning.mined_hours, seed=tuning.seed + step)
            # Half of them old: what has been learnt must not be forgotten.
            mined = mine(average, material.corpus, some, tuning.mined) + mined[: tuning.mined // 2]
        batch = maker.batch(step, mined)
        mel = _masked(tuned, batch.pcm, step)
        with torch.autocast("cpu", torch.bfloat16):
            logits = tuned.logits(mel)
        batch_loss = loss(logits, batch, tuning.label_smoothing)
        optimizer.zero_grad()
        torch.autograd.backward(batch_loss)
        nn.utils.clip_grad_norm_(tuned.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        follow(average, tuned, step, most=tuning.ema_decay)
    return average


@torch.no_grad()
def _masked(network: Network, pcm: Tensor, step: int) -> Tensor:
    """Return the normalised log-mel (B, frames, mels), some bands and times of it masked (SpecAugment)."""
    mel = network.normalize(network.log_mel(pcm))
    rng = np.random.default_rng(step)
    for one in mel:
        for axis, widest in ((1, 6), (1, 6), (0, 9)):
            width = int(rng.integers(widest + 1))
            one.narrow(axis, int(rng.integers(one.shape[axis] - width)), width).zero_()
    return mel


def loss(logits: Tensor, batch: Batch, label_smoothing: float) -> Tensor:
    """Return the mean loss of a batch: logits (B, F, 3) against the masks.

    An answer counts by the keyword's mean probability over the answer frames, so the network chooses its
    moment; a background frame by the probability that it is no keyword, an example's worst
    frames as much as all together.
    """
    log_p = logits.float().log_softmax(-1)
    keyword = log_p[..., KEYWORD]
    other = log_p[..., :KEYWORD].logsumexp(-1)
    answers = batch.answer.any(1)
    inside = batch.answer[answers]  # (A, F)

    def mean_over_answer(x: Tensor) -> Tensor:
        return x[answers].masked_fill(~inside, -math.inf).logsumexp(1) - inside.sum(1).log()

    right, wrong = 1 - 2 * label_smoothing / 3, 2 * label_smoothing / 3
    answer = -right * mean_over_answer(keyword) - wrong * mean_over_answer(other)
    right, wrong = 1 - label_smoothing / 3, label_smoothing / 3
    background = torch.where(batch.background, -right * other - wrong * keyword, 0.0)
    mean = background.sum(1) / batch.background.sum(1).clamp(min=1)
    return (answer.sum() + (mean + background.topk(_WORST_FRAMES, dim=1).values.mean(1)).sum() / 2) / len(
        logits
    )


@torch.no_grad()
def scores(network: Network, samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the smoothed scores all through a recording, [frames, classes], as they are served."""
    padded = np.pad(samples, (0, -len(samples) % network.shape.frame_samples))
    found, _ = network(torch.from_numpy(padded[None]), network.silent_state())
    return cast("NDArray[np.float32]", found[0].numpy())


def _hours_of(speech: Sequence[Recording], hours: float, seed: int) -> list[Recording]:
    """Return recordings at random that are that long together, or all of them."""
    chosen, left = [], hours * 3600 * SAMPLE_RATE_HZ
    for i in np.random.default_rng(seed).permutation(len(speech)):
        if left <= 0:
            break
        chosen.append(speech[i])
        left -= speech[i].length
    return chosen


def mine(network: Network, corpus: Corpus, speech: Sequence[Recording], count: int) -> list[Mined]:
    """Return the places in the speech that sound most like the keyword, worst first, half a second apart."""
    places: list[tuple[float, int, int]] = []
    frame = network.shape.frame_samples
    apart = SAMPLE_RATE_HZ // 2 // frame
    for number, recording in enumerate(speech):
        keyword = scores(network, corpus.samples(recording))[:, KEYWORD].copy()
        for _ in range(_MINED_FROM_ONE):
            at = int(keyword.argmax())
            if keyword[at] < _LIKE_THE_KEYWORD:
                break
            places.append((float(keyword[at]), number, (at + 1) * frame))
            keyword[max(0, at - apart) : at + apart] = 0
    places.sort(key=lambda p: -p[0])
    return [(speech[number], until) for _, number, until in places[:count]]
