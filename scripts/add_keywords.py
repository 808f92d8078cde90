#!/usr/bin/env python
"""Add keywords to a model of `earmark-train verifier`; little changes for its other keywords.

    python scripts/add_keywords.py MODEL CORPUS VOICES OUT KEYWORD... [--steps 4000]

The prepared CORPUS has clips of the new keywords in its training and validation splits, a few hundred of each
are enough; VOICES contains the two files of Kokoro-82M (training/KEYWORD.md), whose voices read the keywords
too, and words that sound like them.

1. The head and the last blocks of the first network are trained further, with a class for each new keyword.
   The probabilities of its other classes are to remain those of MODEL (Learning without Forgetting, Li and
   Hoiem 2016, arXiv 1606.09282). The training continues from OUT.checkpoint, if there is one.
2. The verifier's graph on audio gets a row for each new keyword in its last layer. The new keywords have a
   graph on features of the speech encoder of their own, which is put into one with the other. Both learn
   from the same windows.
3. The fusion of the new graph is fitted on the proposals of the validation split.

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
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import onnx
import onnxruntime
import torch
from earmark_audio.progress import SILENT
from earmark_spotter import SpotterModel
from earmark_spotter.metadata import KeywordInfo
from earmark_spotter.verifier import ENCODED_VERIFIER_KEY, VERIFIER_KEY
from earmark_training.data.corpus import Corpus, SourceFile, decode
from earmark_training.evaluation.offsets import measure_offsets
from earmark_training.keyword import training_set as sets
from earmark_training.keyword.examples import KeywordExampleMaker, KeywordMix
from earmark_training.keyword.fine_tune import (
    FineTuneRecipe,
    loss,
    masked_log_mel,
    mine_hard_negatives,
    sample_speech,
    with_new_head,
)
from earmark_training.keyword.helpers import write_helpers
from earmark_training.keyword.kokoro import Kokoro, default_cache
from earmark_training.keyword.pronunciation import accents, pronounce
from earmark_training.keyword.verifier_training import Windows
from earmark_training.model import encoded_verifier
from earmark_training.model.checkpoint import loaded_state, write_state
from earmark_training.model.onnx_file import check_streaming, load_network, pack, to_onnx, verifier_graphs
from earmark_training.model.precision import matrix_precision
from earmark_training.model.schedule import learning_rate_factor, update_average
from earmark_training.verifier.proposals import Proposals
from earmark_training.verifier.proposals import collect as collect_proposals
from earmark_training.verifier.train import fit_encoded_fusion
from onnx import TensorProto, compose, helper, numpy_helper
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from earmark_training.data.corpus import Recording
    from earmark_training.keyword.examples import HardNegative
    from earmark_training.model.encoded_verifier import EncodedVerifier
    from earmark_training.model.network import Network
    from numpy.typing import NDArray

SEED = 1
TRAINED_BLOCKS = 3
RATE_OF_HEAD, RATE_OF_BLOCKS, WEIGHT_DECAY, WARMUP_STEPS, DECAY = 2e-3, 4e-4, 0.01, 50, 0.99
LABEL_SMOOTHING, WEIGHT_OF_OTHERS = 0.05, 10.0
MINED_STEPS, MINED_HOURS, HARD_NEGATIVES = 400, 2.0, 400
PROPOSED_LESS, FINAL_LESS = 0.8, 1.0
"""What is subtracted from the log-odds of new keywords: from those of the first network, for a third of the
proposals in speech, and from final ones, so that fewer clips of other words are taken for a new keyword."""
FEW_RECORDINGS = 130
"""So a quarter of the examples of a keyword with 390 recordings are synthetic voices."""
MIX = KeywordMix(
    keyword=0.34, part=0.05, confusable=0.32, hard_negative=0.18, noise=0.04, few_recordings=FEW_RECORDINGS
)
MIX_OF_VERIFIER = KeywordMix(
    keyword=0.36, part=0.08, confusable=0.42, hard_negative=0, noise=0.04, few_recordings=FEW_RECORDINGS
)
VERIFIER = FineTuneRecipe(
    seed=SEED, verifier_batches=320, mined_hours=5.0, verifier_steps=3000, mix=MIX_OF_VERIFIER
)
CLIPS_OF_WORD, CLIPS_OF_RARE, RARE, MORE_CLIPS, MORE_FOR_VERIFIER = 160, 30, 400, 6000, 9000
"""Clips of each word among the confusables, and so many more of all words together."""
HELPERS = 900
"""Other words by synthetic voices among the confusables."""
FUSION_THRESHOLD, VALIDATION_SEED = 0.05, 2
ROW_STEPS, ROW_BATCH, ROW_RATE, ROW_DECAY, ROW_DROPOUT, ROW_BIAS = 4000, 512, 5e-3, 0.05, 0.1, -3.0
REPORT_STEPS, CHECKED_CLIPS = 100, 20


class Corpora:
    """The samples of a corpus, and of another one whose recordings start after those."""

    def __init__(self, first: Corpus, second: Corpus) -> None:
        self._first, self._second, self._length = first, second, len(first.audio)

    def samples(self, recording: Recording) -> NDArray[np.float32]:
        """Return a recording's samples, float32 [length]."""
        if recording.start < self._length:
            return self._first.samples(recording)
        return self._second.samples(replace(recording, start=recording.start - self._length))


def collect(
    keywords: Sequence[str], corpus: Corpus, voices: Path, folder: Path
) -> tuple[sets.TrainingSet, sets.TrainingSet]:
    """Return the training sets of the first network and of the verifier, which has more clips."""
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
    first = sets.TrainingSet(
        cast("Corpus", Corpora(corpus, decoded)),
        tuple(keywords),
        recordings=recorded,
        synthesized=tuple(r for r in synthesized if r.word),
        confusables=(*chosen, *clips[:MORE_CLIPS]),
        speech=tuple(corpus.select("speech", "training")),
        held_out=(),
    )
    return first, replace(first, confusables=(*chosen, *clips[:MORE_FOR_VERIFIER]))


def train_first(teacher: Network, training_set: sets.TrainingSet, steps: int, checkpoint: Path) -> Network:
    """Return a copy of the first network with the new keywords, with the average of the weights."""
    torch.manual_seed(SEED)
    classes = teacher.shape.classes
    network = with_new_head(teacher, len(training_set.keywords), kept=classes)
    blocks = list(network.blocks)
    for fixed in (network.stem, *blocks[:-TRAINED_BLOCKS]):
        fixed.requires_grad_(False)
    average = deepcopy(network).eval()
    network.train()
    groups = [
        {"params": list(network.head.parameters()), "lr": RATE_OF_HEAD},
        {"params": [p for b in blocks[-TRAINED_BLOCKS:] for p in b.parameters()], "lr": RATE_OF_BLOCKS},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, partial(learning_rate_factor, warmup_steps=WARMUP_STEPS, steps=steps)
    )
    parts: dict[str, Any] = {
        "network": network,
        "average": average,
        "optimizer": optimizer,
        "schedule": schedule,
    }
    first = 0
    if checkpoint.is_file():
        with loaded_state(checkpoint) as state:
            for name, part in parts.items():
                part.load_state_dict(state[name])
            first = state["step"]
    maker = KeywordExampleMaker(training_set, network.shape, MIX, seed=SEED)
    hard: list[HardNegative] = []
    total, began_s = np.zeros(2), time.monotonic()
    for step in range(first, steps):
        if step >= MINED_STEPS and (step % MINED_STEPS == 0 or step == first):
            speech = sample_speech(training_set.speech, MINED_HOURS, seed=step)
            found = mine_hard_negatives(
                average, training_set, speech, HARD_NEGATIVES, seed=step, first_keyword=classes
            )
            hard = found + hard[: HARD_NEGATIVES // 2]
        torch.manual_seed(step)
        batch = maker.batch(step, hard)
        mel = masked_log_mel(network, batch.pcm, step)
        with matrix_precision():
            with torch.no_grad():
                expected = teacher.logits(mel).float().log_softmax(-1)
            logits = network.logits(mel).float()
        # For the loss of new keywords, all classes of the teacher are one: silence and unknown, half each.
        none = logits[..., :classes].logsumexp(-1, keepdim=True) - math.log(2)
        new = loss(torch.cat((none, none, logits[..., classes:]), -1), batch, LABEL_SMOOTHING)
        kept = (expected.exp() * (expected - logits[..., :classes].log_softmax(-1))).sum(-1)
        kept = kept[~batch.target].mean()
        optimizer.zero_grad()
        torch.autograd.backward(new + WEIGHT_OF_OTHERS * kept)
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        update_average(average, network, step, max_decay=DECAY)
        total += new.item(), kept.item()
        if (step + 1) % REPORT_STEPS == 0:
            seconds = time.monotonic() - began_s
            print(f"{step + 1} of {steps}, losses {total / REPORT_STEPS}, {seconds:.0f} s", flush=True)
            total[:] = 0
            write_state(checkpoint, {"step": step + 1, **{k: p.state_dict() for k, p in parts.items()}})
    return average


class WindowsOfBoth(Windows):
    """Windows for both graphs of a verifier: also the last hidden layer of the one on audio."""

    def __init__(self, model: SpotterModel, graph: bytes, window_samples: int, first_keyword: int) -> None:
        super().__init__(model, first_keyword=first_keyword)
        whole = onnx.load_from_string(graph)
        last = [node for node in whole.graph.node if node.op_type == "Gemm"][-1]
        whole.graph.output.append(helper.make_tensor_value_info(last.input[0], TensorProto.FLOAT, None))
        self._layer, self._window_samples = last.input[0], window_samples
        self._session = onnxruntime.InferenceSession(whole.SerializeToString())
        self.hidden: list[NDArray[np.float32]] = []

    def add(self, samples: NDArray[np.float32], frame: int, label: int, score: float) -> None:
        """Add a window, and what the graph on audio computes for it."""
        super().add(samples, frame, label, score)
        pcm = self.window(samples, frame)
        pcm = np.pad(pcm, (max(0, self._window_samples - len(pcm)), 0))[-self._window_samples :]
        inputs = {"pcm": pcm[None], "class": np.array([2]), "score": np.array([0.5], np.float32)}
        self.hidden.append(self._session.run([self._layer], inputs)[0][0])


def train_rows(windows: WindowsOfBoth, graph: bytes, count: int) -> tuple[Tensor, Tensor]:
    """Return the weights [count, hidden] and biases [count] of new classes in the graph on audio.

    All classes that it has are one class: what they compute is not changed.
    """
    values = {i.name: numpy_helper.to_array(i) for i in onnx.load_from_string(graph).graph.initializer}
    old, bias = (torch.from_numpy(values[f"head.fc2.{name}"].copy()) for name in ("weight", "bias"))
    hidden, classes = torch.from_numpy(np.stack(windows.hidden)), torch.tensor(windows.classes)
    others = (hidden @ old.T + bias).logsumexp(1, keepdim=True)
    chances = windows.weights() / windows.weights().sum()
    torch.manual_seed(SEED)
    rng = np.random.default_rng(SEED)
    weight = torch.zeros(count, old.shape[1], requires_grad=True)
    constant = torch.full((count,), ROW_BIAS, requires_grad=True)
    groups = [{"params": [weight], "weight_decay": ROW_DECAY}, {"params": [constant], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=ROW_RATE)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / ROW_STEPS)
    for _ in range(ROW_STEPS):
        index = torch.from_numpy(rng.choice(len(chances), ROW_BATCH, p=chances))
        new = nn.functional.dropout(hidden[index], ROW_DROPOUT) @ weight.T + constant
        batch_loss = nn.functional.cross_entropy(torch.cat((others[index], new), 1), classes[index])
        optimizer.zero_grad()
        torch.autograd.backward(batch_loss)
        optimizer.step()
        schedule.step()
    return weight.detach(), constant.detach()


def with_rows(graph: bytes, weight: Tensor, bias: Tensor, first: int) -> bytes:
    """Return the graph on audio with more classes, from `first` on.

    The scores of the others are as before: their log-odds are still those against the other old ones.
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
    chosen = next(node.output[0] for node in nodes if node.op_type == "Equal")
    place = next(i for i, n in enumerate(nodes) if n.op_type == "Where" and n.input[0] == chosen)
    nodes[place].input[0] = "left_out"
    nodes[place:place] = [
        helper.make_node("Less", ["class", "first_new"], ["is_old"]),
        helper.make_node("Unsqueeze", ["is_old", "last_axis"], ["is_old_row"]),
        helper.make_node("And", ["is_old_row", "is_new"], ["new_of_old"]),
        helper.make_node("Or", [chosen, "new_of_old"], ["left_out"]),
    ]
    constants = {
        "is_new": is_new,
        "first_new": np.array(first, np.int64),
        "last_axis": np.array([1], np.int64),
    }
    model.graph.initializer.extend(numpy_helper.from_array(v, name) for name, v in constants.items())
    del model.graph.node[:], model.graph.value_info[:]
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def joined(old: bytes, new: bytes, first: int) -> bytes:
    """Return one graph of two on features: the classes from `first` on are those of `new`."""
    model = compose.add_prefix(onnx.load_from_string(old), "old_")
    other = compose.add_prefix(onnx.load_from_string(new), "new_").graph
    names = {value.name: value.name.removeprefix("old_") for value in model.graph.input}
    names |= {value.name: value.name.removeprefix("new_") for value in other.input}
    names["new_class"] = "class_of_new"
    # Its classes are none and the keywords; those of a model are silence, unknown and the keywords.
    nodes = [
        *model.graph.node,
        helper.make_node("Sub", ["class", "shift"], ["class_of_new"]),
        *other.node,
        helper.make_node("Less", ["class", "first"], ["is_old"]),
        helper.make_node("Where", ["is_old", "old_final_score", "new_final_score"], ["final_score"]),
    ]
    for node in nodes:
        node.input[:] = [names.get(name, name) for name in node.input]
    limits = [
        helper.make_tensor(n, TensorProto.INT64, [], [v]) for n, v in (("shift", first - 2), ("first", first))
    ]
    inputs = list(model.graph.input)
    for value in inputs:
        value.name = names[value.name]
    output = helper.make_tensor_value_info("final_score", TensorProto.FLOAT, ["batch"])
    weights = [*model.graph.initializer, *other.initializer, *limits]
    graph = helper.make_graph(nodes, "verifier", inputs, [output], weights)
    whole = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    onnx.checker.check_model(whole)
    return whole.SerializeToString()


def fit_fusion(network: EncodedVerifier, proposals: Proposals, first: int) -> None:
    """Fit the fusion of the graph on features for the classes from `first` on."""
    new = proposals.proposed >= first
    chosen = Proposals(*(getattr(proposals, field.name)[new] for field in fields(Proposals)))
    index, spoken = chosen.proposed - first + 2, np.where(chosen.label >= first, chosen.label - first + 2, 0)
    fit_encoded_fusion(network, replace(chosen, proposed=index, label=spoken), FUSION_THRESHOLD)
    network.fusion[2] -= FINAL_LESS


def main() -> None:
    """Train the networks and write the model."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name in ("model", "corpus", "voices", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("keywords", nargs="+")
    parser.add_argument("--steps", type=int, default=4000)
    args = parser.parse_args()
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    torch.set_num_threads(1)
    corpus, metadata = Corpus(args.corpus), SpotterModel.load(args.model).metadata
    checked, count = metadata.verifier, len(args.keywords)
    if checked is None or not checked.encoder_sha256:
        parser.error(f"{args.model} has no verifier with two graphs: see `earmark-train verifier`")
    first = len(metadata.labels)
    graphs = verifier_graphs(onnx.load(args.model))
    with tempfile.TemporaryDirectory() as scratch:
        of_first, of_verifier = collect(args.keywords, corpus, args.voices, Path(scratch))
        checkpoint = args.out.with_suffix(".checkpoint")
        network = train_first(load_network(args.model).eval(), of_first, args.steps, checkpoint)
        with torch.no_grad():
            cast("Tensor", network.head.bias)[first:] -= PROPOSED_LESS
        graph, state = to_onnx(network), network.silent_state().numpy()
        info = KeywordInfo(0.5, refractory_ms=500, end_lag_ms=0, duration_ms=400)
        metadata = replace(
            metadata,
            labels=(*metadata.labels, *args.keywords),
            keywords={**metadata.keywords, **dict.fromkeys(args.keywords, info)},
        )
        unverified = pack(graph, state, replace(metadata, verifier=None))
        clips = [of_first.corpus.samples(r) for r in of_first.recordings[:CHECKED_CLIPS]]
        check_streaming(network, unverified, clips)
        measured = measure_offsets(unverified, of_first.corpus, of_first.recordings).keywords
        infos = {k: measured[k] if k in args.keywords else i for k, i in metadata.keywords.items()}
        metadata = replace(metadata, keywords=infos)
        windows = WindowsOfBoth(unverified, graphs[VERIFIER_KEY], checked.window_samples, first)
        windows.collect(of_verifier, network.shape, VERIFIER)
    rows = train_rows(windows, graphs[VERIFIER_KEY], count)
    on_audio = with_rows(graphs[VERIFIER_KEY], *rows, first)
    on_features = windows.train(count, VERIFIER)
    # All proposals need a score of the graph on audio, and none of the other one.
    without_encoder = replace(metadata, verifier=replace(checked, certain_score=1.0, encoder_sha256=None))
    proposing = pack(graph, state, without_encoder, verifier=on_audio)
    fit_fusion(on_features, collect_proposals(proposing, corpus, "validation", VALIDATION_SEED), first)
    encoded = joined(graphs[ENCODED_VERIFIER_KEY], encoded_verifier.to_onnx(on_features), first)
    model = pack(graph, state, metadata, args.out, verifier=on_audio, encoded_verifier=encoded)
    print(f"{args.out}: {', '.join(model.metadata.keyword_names)}; SHA-256 {model.sha256}")


if __name__ == "__main__":
    main()
