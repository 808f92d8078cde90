#!/usr/bin/env python
"""Add keywords to a model of `earmark-train verifier`; its other keywords change little.

    python scripts/add_keywords.py MODEL CORPUS VOICES OUT KEYWORD... [--alike KEYWORD...]

The prepared CORPUS has clips of the new keywords in its training and validation splits, a few hundred of each
are enough; VOICES contains the two files of Kokoro-82M (training/KEYWORD.md), whose voices read the keywords
too, and words that sound like them. `--alike`: keywords of MODEL that sound like a new one.

1. The new keywords get last blocks and a head of their own in the first network: see `Network`. The output
   of the blocks before them, for examples and for streams in all surroundings, is computed once; they are
   trained on it.
2. The peaks of that network in streams of the training split, in all surroundings, are windows for the
   verifier. Its graph on audio gets a row for each new keyword in its last layer. The new keywords have a
   graph on features of the speech encoder of their own, which is put into one with the other.
3. The final score of a keyword of `--alike` is lower where the graphs find a new keyword far more likely.
4. The fusion of the new graph is fitted on the peaks in streams of the validation split.

OUT has the thresholds of MODEL, and 0.5 for new keywords: `earmark-train thresholds` chooses them.
"""

from __future__ import annotations

import argparse
import logging
import math
import random
import tempfile
import time
from collections import defaultdict
from copy import deepcopy
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import onnx
import onnxruntime
import torch
from earmark_audio.peak_picker import pick_peaks
from earmark_audio.progress import SILENT
from earmark_spotter import SpotterModel
from earmark_spotter.metadata import KeywordInfo
from earmark_spotter.verifier import ENCODED_VERIFIER_KEY, VERIFIER_KEY
from earmark_training.data.corpus import Corpus, SourceFile, decode, hours
from earmark_training.evaluation.offsets import measure_offsets
from earmark_training.keyword import training_set as sets
from earmark_training.keyword.examples import KeywordBatch, KeywordExampleMaker, KeywordMix, masks
from earmark_training.keyword.fine_tune import loss, masked_log_mel
from earmark_training.keyword.helpers import write_helpers
from earmark_training.keyword.kokoro import Kokoro, default_cache
from earmark_training.keyword.negatives import contains_keyword
from earmark_training.keyword.pronunciation import accents, pronounce
from earmark_training.model import encoded_verifier
from earmark_training.model.encoded_verifier import EncodedVerifier
from earmark_training.model.encoded_verifier_training import train_on_features
from earmark_training.model.network import AddedClasses
from earmark_training.model.onnx_file import check_streaming, load_network, pack, to_onnx, verifier_graphs
from earmark_training.model.precision import matrix_precision
from earmark_training.model.schedule import learning_rate_factor, update_average
from earmark_training.verifier import proposals as peaks
from earmark_training.verifier.train import fit_encoded_fusion
from onnx import TensorProto, compose, helper, numpy_helper
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from earmark_spotter.metadata import ModelMetadata
    from earmark_training.data.corpus import Recording, Split
    from earmark_training.model.network import Network, Shape
    from numpy.typing import NDArray

    Samples = NDArray[np.float32]

SEED = 1
BLOCKS = 2
"""The last blocks that the new keywords have of their own."""
FEW_RECORDINGS = 130
"""So a quarter of the examples of a keyword with 390 recordings are synthetic voices."""
MIX = KeywordMix(
    keyword=0.38, part=0.06, confusable=0.4, hard_negative=0, noise=0.04, few_recordings=FEW_RECORDINGS
)
EXAMPLE_BATCHES, CLIPS_OF_WORD, CLIPS_OF_RARE, RARE, MORE_CLIPS, HELPERS = 1600, 160, 30, 400, 9000, 900
"""Of the examples: the batches, and the clips of each word among the confusables, so many more of all words
together, and other words by synthetic voices."""
STREAMS, STREAM_HOURS = 1800, 10.0
"""The streams of words for the blocks, and the read speech beside them."""
STEPS, FROM_EXAMPLES, WITH_KEYWORD, WITHOUT, HARD_SHARE = 4000, 32, 20, 28, 0.45
"""The batches, and what is in one: examples, and pieces of streams with a new keyword and without one."""
PIECE_FRAMES, LONGEST_TARGET_FRAMES = 40, 8
MINED_STEPS, MINED_STREAMS, HARD_PIECES, LOWEST_HARD = 500, 1500, 1200, 0.03
RATE, WEIGHT_DECAY, WARMUP_STEPS, AVERAGE_DECAY = 2e-3, 0.01, 50, 0.995
LABEL_SMOOTHING, FIRST_BIAS = 0.05, -3.0
PROPOSED_LESS = 0.8
"""What is subtracted from the log-odds of new keywords in the first network, so that the verifier, which
decides, is asked about half as many sounds."""
PEAK_STREAMS, PEAK_HOURS = {"training": 500, "validation": 200}, {"training": 6.0, "validation": 3.7}
"""The streams of words and the read speech in which the verifier's windows are found."""
VERIFIER_STEPS, CHANNELS = 4000, 64
WEIGHT_OF_NONE, WEIGHT_OF_OTHERS, WEIGHT_OF_ALIKE, WEIGHT_OF_HARD, HARD_SCORE = 0.8, 0.5, 0.3, 2.0, 0.1
"""The weights of windows without a keyword, with other keywords, and with those that sound alike; all windows
of new keywords together have 1. Peaks of a new keyword without one count twice."""
FUSION_THRESHOLD = 0.05
ROW_STEPS, ROW_BATCH, ROW_RATE, ROW_DECAY, ROW_DROPOUT, ROW_BIAS = 4000, 512, 5e-3, 0.05, 0.1, -3.0
LIKELY, CERTAINTY_LEFT = 0.03, 0.98
"""Where the graph on audio finds a new keyword this likely, no keyword that sounds like it is certain, so
that the other graph is asked, too: the score is below `encoder_certain_score`."""
GATE = 4.0
"""The final score of such a keyword is lower where the new graph's probability of none is below 1 / GATE."""
REPORT_STEPS, CHECKED_CLIPS = 500, 20


class Corpora:
    """A corpus, and after its samples those of another one."""

    def __init__(self, first: Corpus, second: Corpus) -> None:
        self._first, self._second, self._length = first, second, len(first.audio)
        self.select = first.select

    def samples(self, recording: Recording) -> Samples:
        """Return a recording's samples, float32 [length]."""
        if recording.start < self._length:
            return self._first.samples(recording)
        return self._second.samples(replace(recording, start=recording.start - self._length))


def collect_recordings(
    keywords: Sequence[str], corpus: Corpus, voices: Path, folder: Path
) -> sets.TrainingSet:
    """Return the training set: the keywords by people and by synthetic voices, and other words and speech."""
    neural = sets.NeuralVoices(
        Kokoro(voices, default_cache()),
        "en",
        {k: pronounce([k], "en")[0] for k in keywords},
        {k: accents(k, "en") for k in keywords},
    )
    spoken, places, similar = sets.synthesize_words(
        tuple(keywords), folder, language=None, voices=neural, seed=SEED, progress=SILENT
    )
    helpers, like_helpers = write_helpers(neural.pronunciations.values(), folder / "helpers")
    paths = [*(clip.path for clip in helpers), *like_helpers]
    helping = [SourceFile(path, "clip", "training", sets.CONFUSABLE) for path in paths]
    decoded = decode([*spoken, *similar, *helping], folder / "corpus")
    recordings = [replace(r, start=r.start + len(corpus.audio)) for r in decoded.recordings]
    synthesized = [replace(r, word=place or r.word) for r, place in zip(recordings, places, strict=False)]
    others, helping_words = recordings[len(spoken) : -len(helping)], recordings[-len(helping) :]

    rng = random.Random(SEED)
    clips = [c for c in corpus.select("clip", "training") if c.word]
    recorded = tuple(c for c in clips if c.text in keywords)
    clips = [c for c in clips if c.text not in keywords]
    rng.shuffle(clips)
    of_word: dict[str, list[Recording]] = defaultdict(list)
    for clip in clips:
        of_word[clip.text].append(clip)
    chosen = [c for of in of_word.values() for c in of[: CLIPS_OF_WORD if len(of) > RARE else CLIPS_OF_RARE]]
    chosen += [r for r in (*others, *rng.sample(helping_words, HELPERS)) if r.word]
    return sets.TrainingSet(
        cast("Corpus", Corpora(corpus, decoded)),
        tuple(keywords),
        recordings=recorded,
        synthesized=tuple(r for r in synthesized if r.word),
        confusables=(*chosen, *clips[:MORE_CLIPS]),
        speech=tuple(corpus.select("speech", "training")),
        held_out=(),
    )


class Deck:
    """Draws the clips of streams from those of the new keywords, of the old ones and of other words."""

    def __init__(self, training_set: sets.TrainingSet, split: Split, old: Sequence[str], seed: int) -> None:
        self._rng = random.Random(seed)
        clips = [c for c in training_set.corpus.select("clip", split) if c.word]
        new = training_set.keywords
        self.new = [c for c in clips if c.text in new]
        self.synthesized = list(training_set.synthesized) if split == "training" else []
        self.confusables = list(training_set.confusables) if split == "training" else []
        self.others = [c for c in clips if c.text not in new]
        self.old = {k: [c for c in clips if c.text == k] for k in old}
        self.any_old = [c for of in self.old.values() for c in of]
        self.unknown = [c for c in self.others if c.text not in self.old]

    def draw(self, *counts: tuple[list[Recording], int]) -> list[Recording]:
        """Return the clips of a stream in random order. counts: lists, and how many to draw from each."""
        clips = [self._rng.choice(of) for of, count in counts if of for _ in range(count)]
        self._rng.shuffle(clips)
        return clips

    def stream_for_blocks(self) -> list[Recording]:
        """Return the clips of a stream for the training of the blocks."""
        return self.draw(
            (self.new, 8), (self.synthesized, 2), (self.any_old, 9), (self.others, 6), (self.confusables, 5)
        )

    def stream_for_peaks(self, alike: Sequence[str]) -> list[Recording]:
        """Return the clips of a stream in which peaks are collected."""
        return self.draw(
            (self.new, 5),
            (self.synthesized, 1),
            *((of, 1) for of in self.old.values()),
            *((self.old[k], 2) for k in alike),
            (self.unknown, 5),
            (self.confusables, 3),
        )


@dataclass(frozen=True, slots=True)
class Computed:
    """What the shared blocks compute for audio, and what is spoken there."""

    inputs: NDArray[np.float16]  # [frames + what the own blocks need before the first one, channels]
    target: NDArray[np.int8]  # [frames]: 1 + the index of the new keyword that should be detected, or 0
    background: NDArray[np.bool_]  # [frames]: no new keyword must be detected


class WithOldClasses(nn.Module):
    """The last layers of new keywords, and those of the trained network for the probability of none."""

    def __init__(self, network: Network, shape: Shape) -> None:
        super().__init__()
        self.old_blocks, self.old_head = network.blocks[-BLOCKS:], network.head
        self.old_blocks.requires_grad_(False)
        self.old_head.requires_grad_(False)
        self.added = AddedClasses(shape)
        with torch.no_grad():
            self.added.head.weight.mul_(0.1)
            cast("Tensor", self.added.head.bias).fill_(FIRST_BIAS)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (batch, frames, 2 + keywords) for x (frames + past, batch, channels).

        All classes of the trained network are one, none: its log-odds are halved between silence and unknown,
        so that the loss of keyword models fits.
        """
        old = x
        for block in self.old_blocks:
            old = block.eval()(old)
        none = self.old_head(old).logsumexp(-1, keepdim=True) - math.log(2)
        return torch.cat((none, none, self.added(x)), -1).transpose(0, 1)

    @torch.no_grad()
    def scores(self, inputs: NDArray[np.float16], smoothing: int) -> Samples:
        """Return the smoothed scores of the new keywords, [frames, keywords]."""
        found = self(torch.from_numpy(inputs.astype(np.float32))[:, None])[0].softmax(-1)[:, 2:].numpy()
        sums = np.cumsum(np.pad(found, ((smoothing, 0), (0, 0))), 0)
        return cast("Samples", (sums[smoothing:] - sums[:-smoothing]) / smoothing)


def past_frames(network: Network) -> int:
    """Return the frames before a score that the last blocks need."""
    return sum(kernel - 1 for kernel in network.shape.kernels[-BLOCKS:])


def compute_examples(network: Network, training_set: sets.TrainingSet) -> tuple[NDArray[Any], ...]:
    """Return what the shared blocks compute for examples [N, frames, channels], and the batches' fields."""
    maker = KeywordExampleMaker(training_set, network.shape, MIX, seed=SEED)
    parts: list[tuple[NDArray[Any], ...]] = []
    for number in range(EXAMPLE_BATCHES):
        batch = maker.batch(number)
        with torch.no_grad(), matrix_precision():
            x = network.body(masked_log_mel(network, batch.pcm, number), without_last=BLOCKS).transpose(0, 1)
        masks = (part.numpy() for part in (batch.keyword, batch.target, batch.background))
        parts.append((x.float().half().numpy(), *masks))
    return tuple(np.concatenate(part) for part in zip(*parts, strict=True))


def compute_streams(network: Network, training_set: sets.TrainingSet, deck: Deck) -> list[Computed]:
    """Return streams of words, and read speech without a new keyword, in all surroundings."""
    rng, scene = np.random.default_rng(SEED), peaks.SplitScene(training_set.corpus, "training")
    speech = [
        r for r in training_set.speech if not any(contains_keyword(r.text, k) for k in training_set.keywords)
    ]
    computed, read_hours = [], 0.0
    for number in range(STREAMS):
        samples, words, power = peaks.stream_of(rng, training_set.corpus, deck.stream_for_blocks())
        samples = peaks.changed(scene, rng, samples, power, peaks.WORD_SHARES)
        spoken = [
            (training_set.keywords.index(w.text), w.start, w.end)
            for w in words
            if w.text in training_set.keywords
        ]
        computed.append(compute(network, samples, spoken))
        while read_hours < STREAM_HOURS * (number + 1) / STREAMS:
            recording = speech[int(rng.integers(len(speech)))]
            samples = training_set.corpus.samples(recording)
            samples = peaks.changed(
                scene, rng, samples, float(np.square(samples).mean()), peaks.SPEECH_SHARES
            )
            computed.append(compute(network, samples, []))
            read_hours += hours([recording])
    return [one for one in computed if len(one.target) >= PIECE_FRAMES]


def compute(network: Network, samples: Samples, spoken: list[tuple[int, int, int]]) -> Computed:
    """Return what the shared blocks compute for a recording in which (keyword, start, end) are spoken."""
    shape = network.shape
    before = shape.unsmoothed_receptive_field_samples - shape.frame_samples
    samples = np.pad(samples, (before, 0))
    samples = samples[: len(samples) - (len(samples) - before) % shape.frame_samples]
    with torch.no_grad():
        mel = network.normalize(network.log_mel(torch.from_numpy(samples[None])))
        inputs = network.body(mel, without_last=BLOCKS)[:, 0].half().numpy()
    ends = (1 + np.arange(len(inputs) - past_frames(network))) * shape.frame_samples
    target, background = np.zeros(len(ends), np.int8), np.ones(len(ends), bool)
    for keyword, start, end in spoken:
        of_word, around = masks(ends, end, end - start)
        target[of_word] = 1 + keyword
        background &= around
    return Computed(inputs, target, background)


def pieces_of_streams(
    streams: Sequence[Computed], hard: Sequence[tuple[int, int]], past: int, rng: np.random.Generator
) -> list[tuple[Any, ...]]:
    """Draw pieces of streams: the fields of a batch's examples, with a new keyword or without one."""
    ends = np.cumsum([len(one.target) for one in streams])
    drawn: list[tuple[Any, ...]] = []
    while len(drawn) < WITH_KEYWORD + WITHOUT:
        with_keyword = len(drawn) < WITH_KEYWORD
        if not with_keyword and hard and rng.random() < HARD_SHARE:
            index, frame = hard[int(rng.integers(len(hard)))]
            frame -= int(rng.integers(PIECE_FRAMES))
        else:
            frame = int(rng.integers(ends[-1]))
            index = int(np.searchsorted(ends, frame, side="right"))
            frame -= int(ends[index]) - len(streams[index].target)
        one = streams[index]
        first = int(np.clip(frame, 0, len(one.target) - PIECE_FRAMES))
        target = one.target[first : first + PIECE_FRAMES]
        words = set(target[target > 0].tolist())
        # A piece has one word at most, so that the loss knows which one.
        if len(words) != with_keyword or (target > 0).sum() > LONGEST_TARGET_FRAMES:
            continue
        keyword = np.int64(words.pop() - 1 if words else 0)
        inputs = one.inputs[first : first + PIECE_FRAMES + past]
        drawn.append((inputs, keyword, target > 0, one.background[first : first + PIECE_FRAMES]))
    return drawn


def mine(
    blocks: WithOldClasses, streams: Sequence[Computed], smoothing: int, rng: np.random.Generator
) -> list[tuple[int, int]]:
    """Return the places (stream, frame) without a new keyword where its score is highest."""
    found: list[tuple[float, int, int]] = []
    for index in rng.permutation(len(streams))[:MINED_STREAMS].tolist():
        one = streams[index]
        scores = np.where(one.background, blocks.scores(one.inputs, smoothing).max(1), 0)
        frames = pick_peaks(scores, lowest=LOWEST_HARD, before=12, after=12).tolist()
        found += [(float(scores[f]), index, f) for f in frames]
    found.sort(reverse=True)
    return [(index, frame) for _, index, frame in found[:HARD_PIECES]]


def train_blocks(
    network: Network,
    examples: tuple[NDArray[Any], ...],
    streams: Sequence[Computed],
    keywords: int,
    steps: int,
) -> Network:
    """Return the network with the new classes, with the average of the weights."""
    torch.manual_seed(SEED)
    rng, past = np.random.default_rng(SEED), past_frames(network)
    classes = network.shape.classes + keywords
    shape = replace(network.shape, classes=classes, added_classes=keywords, added_blocks=BLOCKS)
    trained = WithOldClasses(network, shape)
    average = deepcopy(trained).eval()
    trained.train()
    optimizer = torch.optim.AdamW(trained.added.parameters(), RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, partial(learning_rate_factor, warmup_steps=WARMUP_STEPS, steps=steps)
    )
    hard: list[tuple[int, int]] = []
    total, began_s = 0.0, time.monotonic()
    for step in range(steps):
        if step and step % MINED_STEPS == 0:
            hard = mine(average, streams, network.shape.smoothing_frames, rng)
        index = rng.integers(len(examples[0]), size=FROM_EXAMPLES)
        drawn = pieces_of_streams(streams, hard, past, rng)
        x, *masks = (
            np.concatenate((part[index], np.stack([one[i] for one in drawn])))
            for i, part in enumerate(examples)
        )
        inputs = torch.from_numpy(x.astype(np.float32)).transpose(0, 1)
        batch = KeywordBatch(inputs, *map(torch.from_numpy, masks))
        batch_loss = loss(trained(inputs), batch, LABEL_SMOOTHING)
        optimizer.zero_grad()
        torch.autograd.backward(batch_loss)
        nn.utils.clip_grad_norm_(trained.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        update_average(average, trained, step, max_decay=AVERAGE_DECAY)
        total += batch_loss.item()
        if (step + 1) % REPORT_STEPS == 0:
            seconds = time.monotonic() - began_s
            print(f"{step + 1} of {steps}, loss {total / REPORT_STEPS:.4f}, {seconds:.0f} s", flush=True)
            total = 0.0
    with torch.no_grad():
        cast("Tensor", average.added.head.bias).sub_(PROPOSED_LESS)
    network.shape, network.added = shape, average.added
    return network.folded()


class HiddenLayer:
    """The graph on audio as a verifier, which also keeps its last hidden layer for each window."""

    def __init__(self, graph: bytes) -> None:
        whole = onnx.load_from_string(graph)
        last = [node for node in whole.graph.node if node.op_type == "Gemm"][-1]
        whole.graph.output.append(helper.make_tensor_value_info(last.input[0], TensorProto.FLOAT, None))
        self._outputs = (last.input[0], "final_score")
        self._session = onnxruntime.InferenceSession(whole.SerializeToString())
        self.values: list[Samples] = []

    def final_scores(self, pcm: Samples, scores: Mapping[int, float]) -> dict[int, float]:
        """Return the final scores of the keywords that are proposed at a peak: see `Verifier`."""
        score = np.fromiter(scores.values(), np.float32)
        inputs = {"pcm": pcm[None], "class": np.fromiter(scores, np.int64), "score": score}
        hidden, finals = self._session.run(self._outputs, inputs)
        self.values.append(hidden[0])
        return dict(zip(scores, finals.tolist(), strict=True))


def train_rows(hidden: Tensor, classes: NDArray[np.int64], graph: bytes, count: int) -> tuple[Tensor, Tensor]:
    """Return the weights [count, hidden] and biases [count] of new classes in the graph on audio.

    hidden [N, hidden], classes [N]: the windows, 0 for no new keyword. All classes that the graph has are one
    class: what they compute is not changed.
    """
    values = {i.name: numpy_helper.to_array(i) for i in onnx.load_from_string(graph).graph.initializer}
    old, bias = (torch.from_numpy(values[f"head.fc2.{name}"].copy()) for name in ("weight", "bias"))
    others, wanted = (hidden @ old.T + bias).logsumexp(1, keepdim=True), torch.from_numpy(classes)
    torch.manual_seed(SEED)
    rng = np.random.default_rng(SEED)
    weight = torch.zeros(count, old.shape[1], requires_grad=True)
    constant = torch.full((count,), ROW_BIAS, requires_grad=True)
    groups = [{"params": [weight], "weight_decay": ROW_DECAY}, {"params": [constant], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=ROW_RATE)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / ROW_STEPS)
    for _ in range(ROW_STEPS):
        index = torch.from_numpy(rng.integers(len(hidden), size=ROW_BATCH))
        new = nn.functional.dropout(hidden[index], ROW_DROPOUT) @ weight.T + constant
        batch_loss = nn.functional.cross_entropy(torch.cat((others[index], new), 1), wanted[index])
        optimizer.zero_grad()
        torch.autograd.backward(batch_loss)
        optimizer.step()
        schedule.step()
    return weight.detach(), constant.detach()


def constants(**values: Any) -> list[onnx.TensorProto]:
    """Return initializers with these names."""
    return [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()]


def with_rows(graph: bytes, weight: Tensor, bias: Tensor, first: int, alike: Sequence[int]) -> bytes:
    """Return the graph on audio with more classes, from `first` on.

    The scores of the others are as before: their log-odds are still those against the other old ones. Those
    of the classes `alike` are at most CERTAINTY_LEFT where a new class is likely.
    """
    model = onnx.load_from_string(graph)
    more = {"head.fc2.weight": weight.numpy(), "head.fc2.bias": bias.numpy()}
    for initializer in model.graph.initializer:
        value = numpy_helper.to_array(initializer)
        if initializer.name == "arange":
            value = np.arange(len(value) + len(bias), dtype=value.dtype)
            is_new = value >= len(value) - len(bias)
        elif initializer.name in more:
            value = np.concatenate((value, more[initializer.name]))
        initializer.CopyFrom(numpy_helper.from_array(value, initializer.name))
    nodes = list(model.graph.node)
    logits = [node for node in nodes if node.op_type == "Gemm"][-1].output[0]
    chosen = next(node.output[0] for node in nodes if node.op_type == "Equal")
    place = next(i for i, n in enumerate(nodes) if n.op_type == "Where" and n.input[0] == chosen)
    nodes[place].input[0] = "left_out"
    nodes[place:place] = [
        helper.make_node("Less", ["class", "first_new"], ["is_old"]),
        helper.make_node("Unsqueeze", ["is_old", "last_axis"], ["is_old_row"]),
        helper.make_node("And", ["is_old_row", "is_new"], ["new_of_old"]),
        helper.make_node("Or", [chosen, "new_of_old"], ["left_out"]),
    ]
    next(node for node in nodes if node.output[0] == "final_score").output[0] = "score_before"
    nodes += [
        helper.make_node("Softmax", [logits], ["all_probabilities"], axis=1),
        helper.make_node("Gather", ["all_probabilities", "new_columns"], ["new_probabilities"], axis=1),
        helper.make_node("ReduceSum", ["new_probabilities", "last_axis"], ["new_probability"], keepdims=0),
        helper.make_node("Greater", ["new_probability", "likely"], ["may_be_new"]),
        helper.make_node("Gather", ["is_alike", "class"], ["class_is_alike"]),
        helper.make_node("And", ["may_be_new", "class_is_alike"], ["is_uncertain"]),
        helper.make_node("Min", ["score_before", "certainty_left"], ["uncertain_score"]),
        helper.make_node("Where", ["is_uncertain", "uncertain_score", "score_before"], ["final_score"]),
    ]
    model.graph.initializer.extend(
        constants(
            is_new=is_new,
            first_new=np.int64(first),
            last_axis=np.array([1], np.int64),
            new_columns=np.flatnonzero(is_new),
            likely=np.float32(LIKELY),
            is_alike=np.isin(np.arange(first + len(bias)), alike),
            certainty_left=np.float32(CERTAINTY_LEFT),
        )
    )
    del model.graph.node[:], model.graph.value_info[:]
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def joined(old: bytes, new: bytes, first: int, count: int, alike: Sequence[int]) -> bytes:
    """Return one graph of two on features: the `count` classes from `first` on are those of `new`.

    The scores of the classes `alike` are lower where `new` finds one of its classes far more likely than
    none.
    """
    model = compose.add_prefix(onnx.load_from_string(old), "old_")
    other = compose.add_prefix(onnx.load_from_string(new), "new_").graph
    names = {value.name: value.name.removeprefix("old_") for value in model.graph.input}
    names |= {value.name: value.name.removeprefix("new_") for value in other.input}
    names["new_class"] = "class_of_new"
    logits = [node for node in other.node if node.op_type == "Gemm"][-1].output[0]
    # Its classes are none and the keywords; those of a model are silence, unknown and the keywords.
    nodes = [
        *model.graph.node,
        helper.make_node("Sub", ["class", "shift"], ["shifted_class"]),
        helper.make_node("Max", ["shifted_class", "one"], ["class_of_new"]),
        *other.node,
        helper.make_node("Softmax", [logits], ["probabilities_of_new"], axis=1),
        helper.make_node("Gather", ["probabilities_of_new", "none"], ["probability_of_none"], axis=1),
        helper.make_node("Gather", ["gates", "class"], ["gate"]),
        helper.make_node("Mul", ["probability_of_none", "gate"], ["share"]),
        helper.make_node("Min", ["share", "all"], ["share_left"]),
        helper.make_node("Mul", ["old_final_score", "share_left"], ["score_of_old"]),
        helper.make_node("Less", ["class", "first"], ["is_old"]),
        helper.make_node("Where", ["is_old", "score_of_old", "new_final_score"], ["final_score"]),
    ]
    for node in nodes:
        node.input[:] = [names.get(name, name) for name in node.input]
    values = constants(
        shift=np.int64(first - 2),
        one=np.int64(1),
        none=np.int64(0),
        first=np.int64(first),
        gates=np.where(np.isin(np.arange(first + count), alike), GATE, np.inf).astype(np.float32),
        all=np.float32(1),
    )
    inputs = list(model.graph.input)
    for value in inputs:
        value.name = names[value.name]
    output = helper.make_tensor_value_info("final_score", TensorProto.FLOAT, ["batch"])
    weights = [*model.graph.initializer, *other.initializer, *values]
    graph = helper.make_graph(nodes, "verifier", inputs, [output], weights)
    whole = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    onnx.checker.check_model(whole)
    return whole.SerializeToString()


def train_on_windows(found: peaks.Proposals, first: int, count: int, alike: Sequence[int]) -> EncodedVerifier:
    """Return the new keywords' network on features, trained on the windows of proposals."""
    label = found.label
    is_new, none = label >= first, label == 0
    weights = np.where(is_new, 1 / is_new.sum(), 0)
    of_others, of_alike = ~is_new & ~none, np.isin(label, alike)
    for windows, weight in (
        (none, WEIGHT_OF_NONE),
        (of_others, WEIGHT_OF_OTHERS),
        (of_alike, WEIGHT_OF_ALIKE),
    ):
        weights[windows] = weight / max(1, windows.sum())
    weights[none & (found.proposed >= first) & (found.score > HARD_SCORE)] *= WEIGHT_OF_HARD
    classes = np.where(is_new, label - first + 1, 0)
    torch.manual_seed(SEED)
    network = EncodedVerifier(count, CHANNELS)
    return train_on_features(network, found.features, classes, weights, VERIFIER_STEPS, seed=SEED)


def fit_fusion(network: EncodedVerifier, found: peaks.Proposals, first: int) -> None:
    """Fit the fusion of the graph on features for the classes from `first` on."""
    new = found.proposed >= first
    chosen = peaks.Proposals(*(getattr(found, field.name)[new] for field in fields(peaks.Proposals)))
    index, spoken = chosen.proposed - first + 2, np.where(chosen.label >= first, chosen.label - first + 2, 0)
    fit_encoded_fusion(network, replace(chosen, proposed=index, label=spoken), FUSION_THRESHOLD)


def with_keywords(
    metadata: ModelMetadata, network: Network, graph: onnx.ModelProto, training_set: sets.TrainingSet
) -> ModelMetadata:
    """Return the metadata with the new keywords, whose offsets are measured, after a check of the graph."""
    keywords = training_set.keywords
    info = KeywordInfo(0.5, refractory_ms=500, end_lag_ms=0, duration_ms=400)
    metadata = replace(
        metadata,
        labels=(*metadata.labels, *keywords),
        keywords={**metadata.keywords, **dict.fromkeys(keywords, info)},
    )
    unverified = pack(graph, network.silent_state().numpy(), replace(metadata, verifier=None))
    clips = [training_set.corpus.samples(r) for r in training_set.recordings[:CHECKED_CLIPS]]
    check_streaming(network, unverified, clips)
    measured = measure_offsets(unverified, training_set.corpus, training_set.recordings).keywords
    return replace(metadata, keywords={**metadata.keywords, **{k: measured[k] for k in keywords}})


def main() -> None:
    """Train the networks and write the model."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name in ("model", "corpus", "voices", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("keywords", nargs="+")
    parser.add_argument("--alike", nargs="*", default=())
    parser.add_argument("--steps", type=int, default=STEPS)
    args = parser.parse_args()
    logging.basicConfig(format="%(message)s")
    logging.getLogger("earmark_training").setLevel(logging.INFO)
    torch.set_num_threads(1)
    corpus, metadata = Corpus(args.corpus), SpotterModel.load(args.model).metadata
    checked, count, first = metadata.verifier, len(args.keywords), len(metadata.labels)
    if checked is None or not checked.encoder_sha256:
        parser.error(f"{args.model} has no verifier with two graphs: see `earmark-train verifier`")
    alike = [metadata.labels.index(keyword) for keyword in args.alike]
    graphs = verifier_graphs(onnx.load(args.model))
    audio = graphs[VERIFIER_KEY]
    with tempfile.TemporaryDirectory() as scratch:
        training_set = collect_recordings(args.keywords, corpus, args.voices, Path(scratch))
        decks = {
            split: Deck(training_set, split, metadata.keyword_names, SEED)
            for split in ("training", "validation")
        }
        base = load_network(args.model).eval()
        examples = compute_examples(base, training_set)
        streams = compute_streams(base, training_set, decks["training"])
        network = train_blocks(base, examples, streams, count, args.steps)
        del examples, streams
        graph, state = to_onnx(network), network.silent_state().numpy()
        metadata = with_keywords(metadata, network, graph, training_set)
        # All proposals need a score of the graph on audio, and none of the other one.
        without_encoder = replace(metadata, verifier=replace(checked, certain_score=1.0, encoder_sha256=None))

        def proposals(split: Split, on_audio: bytes) -> tuple[peaks.Proposals, Tensor]:
            model = pack(graph, state, without_encoder, verifier=on_audio)
            hidden = HiddenLayer(on_audio)
            model.verifier = cast("Any", hidden)
            passes = PEAK_HOURS[split] / hours(corpus.select("speech", split))
            drawn = [decks[split].stream_for_peaks(args.alike) for _ in range(PEAK_STREAMS[split])]
            found = peaks.collect(
                model, training_set.corpus, split, SEED, streams=drawn, passes_of_speech=passes
            )
            return found, torch.from_numpy(np.stack(hidden.values))

        width = next(
            i.dims[1] for i in onnx.load_from_string(audio).graph.initializer if i.name == "head.fc2.weight"
        )
        untrained = torch.zeros(count, width), torch.full((count,), ROW_BIAS)
        found, hidden = proposals("training", with_rows(audio, *untrained, first, alike))
        classes = np.where(found.label >= first, found.label - first + 1, 0)
        on_audio = with_rows(audio, *train_rows(hidden, classes, audio, count), first, alike)
        on_features = train_on_windows(found, first, count, alike)
        fit_fusion(on_features, proposals("validation", on_audio)[0], first)
    encoded = joined(graphs[ENCODED_VERIFIER_KEY], encoded_verifier.to_onnx(on_features), first, count, alike)
    model = pack(graph, state, metadata, args.out, verifier=on_audio, encoded_verifier=encoded)
    print(f"{args.out}: {', '.join(model.metadata.keyword_names)}; SHA-256 {model.sha256}")


if __name__ == "__main__":
    main()
