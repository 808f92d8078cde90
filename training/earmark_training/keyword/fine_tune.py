"""Fine-tuning: a trained network with a new head for one keyword, trained for a few hundred batches.

The body is trained at a fraction of the head's learning rate. Between rounds, the training speech is scored,
and the places with the highest scores become negative examples (hard negative mining).
"""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from earmark_audio.peak_picker import pick_peaks
from torch import Tensor, nn

from earmark_training.data.corpus import SAMPLE_RATE_HZ, hours
from earmark_training.evaluation.peaks import LOWEST_PEAK
from earmark_training.keyword.examples import KeywordExampleMaker, KeywordMix
from earmark_training.keyword.held_out_conditions import CLEAN, CONDITIONS, Surroundings
from earmark_training.model.network import Pointwise
from earmark_training.model.precision import matrix_precision
from earmark_training.model.schedule import learning_rate_factor, update_average

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from earmark_training.data.corpus import Recording
    from earmark_training.keyword.examples import HardNegative, KeywordBatch
    from earmark_training.keyword.training_set import TrainingSet
    from earmark_training.model.network import Network
    from earmark_training.model.onnx_file import ServedNetwork

FIRST_KEYWORD = 2
"""The class of the first keyword in a fine-tuned network, after silence and unknown."""

STEPS_PER_HOUR = 60.0
"""The time in which an hour of speech is scored, in steps of training: for estimates of the time left."""

_UNKNOWN = 1
_WORST_FRAMES = 4
_PEAKS_PER_RECORDING, _PEAK_DISTANCE_S = 3, 0.5


@dataclass(frozen=True, slots=True)
class FineTuneRecipe:
    """The hyperparameters of fine-tuning."""

    steps: int = 400
    learning_rate: float = 1e-3
    body_rate: float = 0.2
    """The body's learning rate, relative to the head's."""
    weight_decay: float = 0.01
    warmup_steps: int = 30
    ema_decay: float = 0.98
    label_smoothing: float = 0.05
    rounds: int = 3
    """Rounds of hard negative mining."""
    hard_negatives: int = 300
    """The number of hard negatives that each round adds."""
    mined_hours: float = 2.0
    """The length of the speech that is scored in each round."""
    verifier_batches: int = 120
    """The batches of examples that the verifier is trained on, beside speech."""
    verifier_steps: int = 2000
    seed: int = 1
    mix: KeywordMix = field(default_factory=KeywordMix)

    @property
    def round_steps(self) -> int:
        """The number of steps after which each round of mining begins."""
        return math.ceil(self.steps / (self.rounds + 1))


def with_new_head(network: Network, keywords: int = 1) -> Network:
    """Return a copy of the network whose keywords are new ones.

    Batch normalisation is folded into its layers.
    """
    tuned = network.folded()
    tuned.shape = replace(network.shape, classes=FIRST_KEYWORD + keywords, added_classes=0, added_blocks=0)
    tuned.added = None
    weight, bias = network.head.weight, cast("Tensor", network.head.bias)
    tuned.head = Pointwise(weight.shape[0], FIRST_KEYWORD + keywords, normalized=False)
    classes = [*range(FIRST_KEYWORD), *keywords * [_UNKNOWN]]
    with torch.no_grad():
        # A keyword starts as an unlikely kind of unknown speech.
        tuned.head.weight.copy_(weight[:, classes])
        cast("Tensor", tuned.head.bias).copy_(
            bias[classes] - torch.tensor([0.0] * FIRST_KEYWORD + [2.0] * keywords)
        )
    return tuned


def fine_tune(
    network: Network,
    training_set: TrainingSet,
    recipe: FineTuneRecipe,
    *,
    count: Callable[[float], object] = lambda _: None,
) -> Network:
    """Return a copy of the network, fine-tuned to the keywords, with the average of the weights.

    `count` is called with the work that was done, of which `work` is the total.
    """
    torch.manual_seed(recipe.seed)
    tuned = with_new_head(network, len(training_set.keywords))
    average = deepcopy(tuned)
    tuned.train()
    maker = KeywordExampleMaker(training_set, tuned.shape, recipe.mix, seed=recipe.seed)
    head = list(tuned.head.parameters())
    body = [p for name, p in tuned.named_parameters() if not name.startswith("head.")]
    optimizer = torch.optim.AdamW(
        [
            {"params": head, "lr": recipe.learning_rate},
            {"params": body, "lr": recipe.learning_rate * recipe.body_rate},
        ],
        weight_decay=recipe.weight_decay,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, partial(learning_rate_factor, warmup_steps=recipe.warmup_steps, steps=recipe.steps)
    )
    hard_negatives: list[HardNegative] = []
    for step in range(recipe.steps):
        if step and step % recipe.round_steps == 0:
            speech = sample_speech(training_set.speech, recipe.mined_hours, seed=recipe.seed + step)
            new = mine_hard_negatives(
                average, training_set, speech, recipe.hard_negatives, seed=recipe.seed + step, count=count
            )
            # Keep some of the last round, so that they are not forgotten.
            hard_negatives = new + hard_negatives[: recipe.hard_negatives // 2]
        batch = maker.batch(step, hard_negatives)
        mel = masked_log_mel(tuned, batch.pcm, step)
        with matrix_precision():
            logits = tuned.logits(mel)
        batch_loss = loss(logits, batch, recipe.label_smoothing)
        optimizer.zero_grad()
        torch.autograd.backward(batch_loss)
        nn.utils.clip_grad_norm_(tuned.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        update_average(average, tuned, step, max_decay=recipe.ema_decay)
        count(1)
    return average


def work(training_set: TrainingSet, recipe: FineTuneRecipe, *, before: int | None = None) -> float:
    """Return the work of `fine_tune`, in steps of training: all of it, or that `before` a step."""
    steps = recipe.steps if before is None else before
    rounds = max(0, steps - 1) // recipe.round_steps
    return steps + rounds * min(recipe.mined_hours, hours(training_set.speech)) * STEPS_PER_HOUR


@torch.no_grad()
def masked_log_mel(network: Network, pcm: Tensor, step: int) -> Tensor:
    """Return the normalised log-mel (B, frames, mels) with random bands and times masked (SpecAugment)."""
    mel = network.normalize(network.log_mel(pcm))
    rng = np.random.default_rng(step)
    for example in mel:
        for axis, max_width in ((1, 6), (1, 6), (0, 9)):
            width = int(rng.integers(max_width + 1))
            example.narrow(axis, int(rng.integers(example.shape[axis] - width)), width).zero_()
    return mel


def loss(logits: Tensor, batch: KeywordBatch, label_smoothing: float) -> Tensor:
    """Return the mean loss of a batch for logits (B, F, classes).

    A target contributes the negative log of the keyword's mean probability over the target frames, so the
    network chooses the frame. A background frame contributes the negative log of the probability that there
    is no keyword; the worst frames of an example weigh as much as all together. In an example of a keyword,
    the probability of the other keywords counts as background at every frame.
    """
    log_p = logits.float().log_softmax(-1)
    classes = log_p.shape[-1]
    own = torch.nn.functional.one_hot(batch.keyword + FIRST_KEYWORD, classes).bool()[
        :, None
    ]  # (B, 1, classes)
    keyword = log_p.masked_fill(~own, -math.inf).logsumexp(-1)
    not_it = log_p.masked_fill(own, -math.inf).logsumexp(-1)
    none = log_p[..., :FIRST_KEYWORD].logsumexp(-1)
    any_keyword = log_p[..., FIRST_KEYWORD:].logsumexp(-1)
    with_target = batch.target.any(1)
    target = batch.target[with_target]  # (examples with a target, F)

    def mean_over_target(x: Tensor) -> Tensor:
        return x[with_target].masked_fill(~target, -math.inf).logsumexp(1) - target.sum(1).log()

    correct, wrong = 1 - 2 * label_smoothing / 3, 2 * label_smoothing / 3
    target_loss = -correct * mean_over_target(keyword) - wrong * mean_over_target(not_it)
    correct, wrong = 1 - label_smoothing / 3, label_smoothing / 3
    frame_loss = torch.where(batch.background, -correct * none - wrong * any_keyword, 0.0)
    count = batch.background.sum(1).clamp(min=1)
    if classes > FIRST_KEYWORD + 1:
        others = log_p.masked_fill(own, -math.inf)[..., FIRST_KEYWORD:].logsumexp(-1)
        confused = with_target[:, None] & ~batch.background
        frame_loss = torch.where(confused, -torch.log1p(-others.exp().clamp(max=1 - 1e-6)), frame_loss)
        count = torch.where(with_target, frame_loss.shape[1], count)
    mean = frame_loss.sum(1) / count
    worst = frame_loss.topk(_WORST_FRAMES, dim=1).values.mean(1)
    return (target_loss.sum() + (mean + worst).sum() / 2) / len(logits)


@torch.no_grad()
def score(network: ServedNetwork, samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the smoothed scores of a recording, [frames, classes], as they are served."""
    padded = np.pad(samples, (0, -len(samples) % network.shape.frame_samples))
    scores, _ = network(torch.from_numpy(padded[None]), network.silent_state())
    return cast("NDArray[np.float32]", scores[0].numpy())


def sample_speech(speech: Sequence[Recording], most_hours: float, seed: int) -> list[Recording]:
    """Return random recordings of `most_hours` together, or all of them."""
    chosen, left = [], most_hours * 3600 * SAMPLE_RATE_HZ
    for i in np.random.default_rng(seed).permutation(len(speech)):
        if left <= 0:
            break
        chosen.append(speech[i])
        left -= speech[i].length
    return chosen


def mine_hard_negatives(
    network: ServedNetwork,
    training_set: TrainingSet,
    speech: Sequence[Recording],
    most: int,
    *,
    seed: int,
    first_keyword: int = FIRST_KEYWORD,
    count: Callable[[float], object] = lambda _: None,
) -> list[HardNegative]:
    """Return the `most` highest peaks of a keyword's score in the speech, highest first.

    Half of the recordings are scored in another condition than clean. Each recording contributes at most
    three peaks, half a second apart. `first_keyword` is the class of the first keyword.
    """
    surroundings = Surroundings(training_set.corpus, training_set.speech)
    peaks: list[tuple[float, int, int]] = []
    frame_samples = network.shape.frame_samples
    distance = int(_PEAK_DISTANCE_S * SAMPLE_RATE_HZ) // frame_samples
    for number, recording in enumerate(speech):
        condition = CONDITIONS[number // 2 % len(CONDITIONS)] if number % 2 else CLEAN
        samples = surroundings.place(condition, recording, seed)
        keyword = score(network, samples)[:, first_keyword:].max(1)
        frames = pick_peaks(
            keyword, lowest=LOWEST_PEAK, before=distance, after=distance, count=_PEAKS_PER_RECORDING
        )
        peaks += [(float(keyword[f]), number, (f + 1) * frame_samples) for f in frames.tolist()]
        count(hours([recording]) * STEPS_PER_HOUR)
    peaks.sort(key=lambda p: -p[0])
    return [(speech[number], end) for _, number, end in peaks[:most]]
