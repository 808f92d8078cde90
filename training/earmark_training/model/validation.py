"""Classification of the validation clips by a network, without a model file."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from earmark_spotter import ClipClassifier

from earmark_training.data.corpus import SAMPLE_RATE_HZ
from earmark_training.data.vocabulary import SILENCE, UNKNOWN
from earmark_training.errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from earmark_training.data.corpus import Corpus
    from earmark_training.model.network import Network

_BATCH = 128
_TAIL_SAMPLES = SAMPLE_RATE_HZ * 2 // 5  # of silence after a clip


@torch.no_grad()
def classify_clips(
    network: Network,
    clips: list[NDArray[np.float32]],
    on_batch: Callable[[int], object] = lambda _: None,
) -> list[int]:
    """Return the class of each clip, by the same rule as the spotter's `classify`.

    `on_batch` is called with 1 after each batch; `batch_count` is their number.
    """
    frame = network.shape.frame_samples
    classes = []
    for i in range(0, len(clips), _BATCH):
        batch = clips[i : i + _BATCH]
        length = -(-(max(map(len, batch)) + _TAIL_SAMPLES) // frame) * frame
        pcm = np.stack([np.pad(clip, (0, length - len(clip))) for clip in batch])
        scores, _ = network(torch.from_numpy(pcm), network.silent_state().expand(len(batch), -1))
        for clip_scores in scores.numpy():
            keywords = range(2, network.shape.classes)  # after silence and unknown: see labels_for
            classifier = ClipClassifier(network.shape.classes, keywords, 0, 1000 * frame / SAMPLE_RATE_HZ)
            classifier.push(clip_scores)
            classes.append(int(classifier.scores.argmax()))
        on_batch(1)
    return classes


def batch_count(corpus: Corpus, labels: tuple[str, ...]) -> int:
    """Return the number of batches in which the validation clips are classified."""
    words = len(corpus.select("clip", "validation"))
    return -(-(words + words // len(labels)) // _BATCH)


def check_validation(keywords: Sequence[str], words_of_clips: Iterable[str]) -> None:
    """Raise RecipeError if no keyword has validation clips."""
    if set(keywords).isdisjoint(words_of_clips):
        raise RecipeError(
            "no validation clips of the keywords: list some clips in validation_list.txt, or add speakers "
            "(by their names, a tenth of them is for validation), and run `earmark-train prepare` again"
        )


def validation_clips(
    corpus: Corpus, labels: tuple[str, ...]
) -> tuple[list[NDArray[np.float32]], NDArray[np.int64]]:
    """Return the validation clips and their classes [n].

    They are followed by pieces of noise, class silence, as many as a class has clips on average.
    """
    index = {label: i for i, label in enumerate(labels)}
    words = corpus.select("clip", "validation")
    clips = [corpus.samples(w) for w in words]
    classes = [index.get(w.text, index[UNKNOWN]) for w in words]
    noises = corpus.clip_noises("validation")
    rng = np.random.default_rng(0)
    for i in range(len(words) // len(labels)):
        noise = noises[i % len(noises)]
        cut = int(rng.integers(max(1, noise.length - SAMPLE_RATE_HZ)))
        clips.append(
            corpus.samples(replace(noise, start=noise.start + cut, length=min(SAMPLE_RATE_HZ, noise.length)))
        )
        classes.append(index[SILENCE])
    return clips, np.array(classes, np.int64)
