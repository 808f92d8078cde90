#!/usr/bin/env python
"""Add keywords that only synthetic voices say to a model of `earmark-train verifier`.

    python scripts/add_synthesized_keywords.py MODEL CORPUS VOICES OUT KEYWORD... [--steps 1600]

VOICES contains the two files of Kokoro-82M (training/KEYWORD.md). Its voices read the keywords and words that
sound like them. The training clips of the prepared CORPUS, without those of the keywords, are other words;
its read speech is speech without them.

The head and the last blocks of the first network are trained further, with a class for each new keyword. The
probabilities of its other classes are to remain those of MODEL (Learning without Forgetting, Li and Hoiem
2016, arXiv 1606.09282). The new keywords have a verifier of their own, on features of the speech encoder,
which is put into the same graph; the graph on audio passes their scores on. The final scores of the other
keywords are computed as before. OUT has the thresholds of MODEL, and 0.5 for new keywords: `earmark-train
thresholds` chooses them. The training of the first network continues from OUT.first, if there is one.
"""

from __future__ import annotations

import argparse
import math
import random
import tempfile
import time
from collections import defaultdict
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import onnx
import torch
from earmark_audio.progress import SILENT
from earmark_spotter import SpotterModel
from earmark_spotter.metadata import KeywordInfo
from earmark_spotter.verifier import ENCODED_VERIFIER_KEY, VERIFIER_KEY
from earmark_training.data.corpus import Corpus, SourceFile, decode
from earmark_training.evaluation.offsets import measure_offsets
from earmark_training.keyword import training_set as sets
from earmark_training.keyword.examples import KeywordExampleMaker, KeywordMix
from earmark_training.keyword.fine_tune import FineTuneRecipe, loss, masked_log_mel
from earmark_training.keyword.helpers import write_helpers
from earmark_training.keyword.kokoro import Kokoro, default_cache
from earmark_training.keyword.pronunciation import accents, pronounce
from earmark_training.keyword.verifier_training import train_verifier
from earmark_training.model import encoded_verifier
from earmark_training.model.checkpoint import loaded_state, write_state
from earmark_training.model.network import Pointwise
from earmark_training.model.onnx_file import check_streaming, load_network, pack, to_onnx, verifier_graphs
from earmark_training.model.precision import matrix_precision
from earmark_training.model.schedule import learning_rate_factor, update_average
from onnx import TensorProto, compose, helper
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from earmark_training.data.corpus import Recording
    from earmark_training.model.network import Network
    from numpy.typing import NDArray

SEED = 1
TRAINED_BLOCKS = 3
RATE_OF_HEAD, RATE_OF_BLOCKS, WEIGHT_DECAY, WARMUP_STEPS, DECAY = 2e-3, 4e-4, 0.01, 50, 0.99
LABEL_SMOOTHING, WEIGHT_OF_OTHERS = 0.05, 4.0
MIX = KeywordMix(keyword=0.42, part=0.08, confusable=0.25, hard_negative=0, noise=0.05)
VERIFIER = FineTuneRecipe(seed=SEED, verifier_batches=260, mined_hours=3.0, verifier_steps=3000)
MIX_OF_VERIFIER = KeywordMix(keyword=0.36, part=0.08, confusable=0.42, hard_negative=0, noise=0.04)
CLIPS_OF_WORD, CLIPS_OF_RARE, RARE, MORE_CLIPS = 160, 30, 400, 9000
"""Clips of each word among the confusables; for the verifier, so many more of all words together."""
SIMILAR_TIMES, HELPERS = 3, 900
"""How often each word that sounds like a keyword is among them, and how many other synthetic words."""
REPORT_STEPS, CHECKED_CLIPS, UNKNOWN = 100, 20, 1


class Corpora:
    """The samples of a corpus, and of another one whose recordings start after those."""

    def __init__(self, first: Corpus, second: Corpus) -> None:
        self._first, self._second, self.length = first, second, len(first.audio)

    def samples(self, recording: Recording) -> NDArray[np.float32]:
        """Return a recording's samples, float32 [length]."""
        if recording.start < self.length:
            return self._first.samples(recording)
        return self._second.samples(replace(recording, start=recording.start - self.length))


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
        keywords, folder, language=None, voices=neural, seed=SEED, progress=SILENT
    )
    helpers, like_helpers = write_helpers(neural.pronunciations.values(), folder / "helpers")
    paths = [*(clip.path for clip in helpers), *like_helpers]
    helping = [SourceFile(path, "clip", "training", sets.CONFUSABLE) for path in paths]
    decoded = decode([*spoken, *similar, *helping], folder / "corpus")
    recordings = [replace(r, start=r.start + len(corpus.audio)) for r in decoded.recordings]
    synthesized = [replace(r, word=place or r.word) for r, place in zip(recordings, places, strict=False)]
    others, helping_words = recordings[len(spoken) :][: len(similar)], recordings[-len(helping) :]

    rng = random.Random(SEED)
    clips = [c for c in corpus.select("clip", "training") if c.word and c.text not in keywords]
    rng.shuffle(clips)
    of_word: dict[str, list[Recording]] = defaultdict(list)
    for clip in clips:
        of_word[clip.text].append(clip)
    chosen = [c for of in of_word.values() for c in of[: CLIPS_OF_WORD if len(of) > RARE else CLIPS_OF_RARE]]
    synthetic = [*SIMILAR_TIMES * others, *rng.sample(helping_words, HELPERS)]
    first = sets.TrainingSet(
        cast("Corpus", Corpora(corpus, decoded)),
        tuple(keywords),
        recordings=(),
        synthesized=tuple(r for r in synthesized if r.word),
        confusables=(*(r for r in synthetic if r.word), *chosen),
        speech=tuple(corpus.select("speech", "training")),
        held_out=(),
    )
    return first, replace(first, confusables=(*first.confusables, *clips[:MORE_CLIPS]))


def extended(network: Network, count: int) -> Network:
    """Return a copy of a network with more classes, which start as unlikely kinds of unknown speech."""
    weight, bias = network.head.weight, cast("Tensor", network.head.bias)
    classes = len(bias)
    longer = deepcopy(network)
    longer.shape = replace(network.shape, classes=classes + count)
    longer.head = Pointwise(len(weight), classes + count, normalized=False)
    rows = [*range(classes), *count * [UNKNOWN]]
    with torch.no_grad():
        longer.head.weight.copy_(weight[:, rows])
        cast("Tensor", longer.head.bias).copy_(bias[rows] - torch.tensor([0.0] * classes + [2.0] * count))
    return longer


def train_first(teacher: Network, training_set: sets.TrainingSet, steps: int, checkpoint: Path) -> Network:
    """Return a copy of the first network with the new keywords, with the average of the weights."""
    torch.manual_seed(SEED)
    classes, count = teacher.shape.classes, len(training_set.keywords)
    network = extended(teacher, count)
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
    parts = {"network": network, "average": average, "optimizer": optimizer, "schedule": schedule}
    first = 0
    if checkpoint.is_file():
        with loaded_state(checkpoint) as state:
            for name, part in parts.items():
                part.load_state_dict(state[name])
            first = state["step"]
    maker = KeywordExampleMaker(training_set, network.shape, MIX, seed=SEED)
    total, began_s = np.zeros(2), time.monotonic()
    for step in range(first, steps):
        torch.manual_seed(step)
        batch = maker.batch(step)
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
            print(
                step + 1, (total / REPORT_STEPS).round(4), f"{time.monotonic() - began_s:.0f} s", flush=True
            )
            total[:] = 0
            write_state(checkpoint, {"step": step + 1, **{k: p.state_dict() for k, p in parts.items()}})
    return average


def joined(old: bytes, new: bytes | None, first: int) -> bytes:
    """Return one graph of two verifiers: the classes from `first` on have `new`, or keep their score."""
    model = compose.add_prefix(onnx.load_from_string(old), "old_")
    nodes, weights = list(model.graph.node), list(model.graph.initializer)
    names = {value.name: value.name.removeprefix("old_") for value in model.graph.input}
    score_of_new = "score"
    if new is not None:
        other = compose.add_prefix(onnx.load_from_string(new), "new_").graph
        names |= {value.name: value.name.removeprefix("new_") for value in other.input}
        names["new_class"] = "class_of_new"
        # Its classes are none and the keywords; those of a model are silence, unknown and the keywords.
        weights += [*other.initializer, helper.make_tensor("shift", TensorProto.INT64, [], [first - 2])]
        nodes += [helper.make_node("Sub", ["class", "shift"], ["class_of_new"]), *other.node]
        score_of_new = "new_final_score"
    for node in nodes:
        node.input[:] = [names.get(name, name) for name in node.input]
    weights.append(helper.make_tensor("first", TensorProto.INT64, [], [first]))
    nodes += [
        helper.make_node("Less", ["class", "first"], ["is_old"]),
        helper.make_node("Where", ["is_old", "old_final_score", score_of_new], ["final_score"]),
    ]
    inputs = list(model.graph.input)
    for value in inputs:
        value.name = names[value.name]
    output = helper.make_tensor_value_info("final_score", TensorProto.FLOAT, ["batch"])
    graph = helper.make_graph(nodes, "verifier", inputs, [output], weights)
    whole = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    onnx.checker.check_model(whole)
    return whole.SerializeToString()


def main() -> None:
    """Train the networks and write the model."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name in ("model", "corpus", "voices", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("keywords", nargs="+")
    parser.add_argument("--steps", type=int, default=1600)
    args = parser.parse_args()
    torch.set_num_threads(1)
    corpus, metadata = Corpus(args.corpus), SpotterModel.load(args.model).metadata
    count = len(metadata.labels)
    verifiers = verifier_graphs(onnx.load(args.model))
    with tempfile.TemporaryDirectory() as scratch:
        of_first, of_verifier = collect(args.keywords, corpus, args.voices, Path(scratch))
        checkpoint = args.out.with_suffix(".first")
        network = train_first(load_network(args.model).eval(), of_first, args.steps, checkpoint)
        graph, state = to_onnx(network), network.silent_state().numpy()
        info = KeywordInfo(0.5, refractory_ms=500, end_lag_ms=0, duration_ms=400)
        metadata = replace(
            metadata,
            labels=(*metadata.labels, *args.keywords),
            keywords={**metadata.keywords, **dict.fromkeys(args.keywords, info)},
        )
        first = pack(graph, state, replace(metadata, verifier=None))
        clips = [of_first.corpus.samples(r) for r in of_first.synthesized[:CHECKED_CLIPS]]
        check_streaming(network, first, clips)
        measured = measure_offsets(first, of_first.corpus, of_first.synthesized).keywords
        infos = {k: measured[k] if k in args.keywords else i for k, i in metadata.keywords.items()}
        verifier = encoded_verifier.to_onnx(
            train_verifier(network, first, of_verifier, VERIFIER, mix=MIX_OF_VERIFIER)
        )
    pack(
        graph,
        state,
        replace(metadata, keywords=infos),
        args.out,
        verifier=joined(verifiers[VERIFIER_KEY], None, count),
        encoded_verifier=joined(verifiers[ENCODED_VERIFIER_KEY], verifier, count),
    )


if __name__ == "__main__":
    main()
