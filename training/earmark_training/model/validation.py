"""Validation clips, and what a network makes of them while it learns."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from earmark_spotter import ClipClassifier

from earmark_training.data.corpus import SAMPLE_RATE_HZ
from earmark_training.data.vocabulary import SILENCE, UNKNOWN

if TYPE_CHECKING:
    from earmark_training.data.corpus import Corpus
    from earmark_training.model.network import Network


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
