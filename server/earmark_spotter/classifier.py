"""One clip, one word: the scores over time put together into one score for every class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from earmark_spotter.model import Float32Array, SpotterModel

_SUSTAINED_MS = 300

_SHARPNESS = 8
"""How far a class must rise to count: words take a network's "some other word" to 0.95 and more for as long
as they last, noises to 0.5 to 0.9, so the line between them is at 0.5 ** (1 / 8) = 0.92 (measured)."""


class ClipClassifier:
    """Names the word in a clip, from the scores of its frames as they come.

    Keywords get their scores in the frame in which the best of them is highest. What that frame
    leaves over goes to the other classes: to each (such as "some other word") by its highest mean
    over 300 ms, sharpened, for what is no word takes it less high; and to silence the rest.
    """

    def __init__(self, class_count: int, keywords: Sequence[int], silence: int, frame_ms: float) -> None:
        """State which classes are keywords, and which one is silence; `for_model` knows."""
        self._keywords = list(keywords)
        self._silence = silence
        self._others = [i for i in range(class_count) if i != silence and i not in keywords]
        self._frames = max(1, round(_SUSTAINED_MS / frame_ms))
        self._best = np.zeros(class_count, np.float32)  # the best keyword's frame, [classes]
        self._sustained = np.zeros(len(self._others))  # the highest means so far
        self._past: NDArray[Any] = np.zeros((self._frames - 1, len(self._others)))

    @classmethod
    def for_model(cls, model: SpotterModel) -> Self:
        """Classify one clip with that model's scores."""
        meta = model.metadata
        frame_ms = meta.frame_samples * 1000 / meta.sample_rate_hz
        return cls(len(meta.labels), meta.keyword_indices, model.silence_index, frame_ms)

    def push(self, scores: Float32Array) -> None:
        """Take the next frames' scores, [frames, classes]."""
        best = scores[scores[:, self._keywords].max(axis=1).argmax()]
        # The first of equals, as in one pass over the whole clip.
        if best[self._keywords].max() > self._best[self._keywords].max():
            self._best = best.copy()
        others = np.concatenate((self._past, scores[:, self._others]))
        means = sliding_window_view(others, self._frames, axis=0).mean(axis=-1)  # [windows, others]
        self._sustained = np.maximum(self._sustained, means.max(axis=0))
        self._past = others[others.shape[0] - self._past.shape[0] :]

    @property
    def scores(self) -> Float32Array:
        """Every class's score, [classes]; they sum to 1."""
        scores = self._best.copy()
        left = 1 - scores[self._keywords].sum()
        share = self._sustained**_SHARPNESS
        share /= max(1.0, share.sum())
        scores[self._others] = left * share
        scores[self._silence] = left * (1 - share.sum())
        return scores
