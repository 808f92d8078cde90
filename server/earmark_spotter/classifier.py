"""Classification of a clip with one word: combines the scores of all frames into one score for each class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from earmark_spotter.model import Float32Array, SpotterModel

_SUSTAINED_MS = 300

_SHARPNESS = 8
"""Exponent that separates words from noises. A word raises the network's "some other word" class to 0.95 and
more while it lasts, a noise raises it to 0.5 to 0.9 (measured). The exponent puts the boundary at
0.5 ** (1 / 8) = 0.92."""

_CLIP_ODDS = 9
"""Factor of the odds of a final score. The verifier is trained for continuous audio, where most peaks are no
keyword. A clip has one word, so that its peaks are keywords far more often. 4 to 50 classify nearly
as well (measured on a third of the validation clips)."""


class ClipClassifier:
    """Accumulates the scores of a clip's frames and computes one score for each class.

    Keywords get their scores in the frame in which the best of them peaks. The remaining
    probability of that frame is divided among the other classes. Each of them (such as "some
    other word") gets a share that grows with its highest mean over 300 ms, raised to a power
    because noises reach lower means than words. The silence class gets the rest.

    The keywords that a verifier has checked get their final scores instead, and the remaining probability is
    divided among the other classes in proportion to their scores.
    """

    def __init__(self, class_count: int, keywords: Sequence[int], silence: int, frame_ms: float) -> None:
        """`keywords`, `silence`: the indices of these classes. `for_model` reads them from a model."""
        self._keywords = list(keywords)
        self._silence = silence
        self._others = [i for i in range(class_count) if i != silence and i not in keywords]
        self._frames = max(1, round(_SUSTAINED_MS / frame_ms))
        self._best = np.zeros(class_count, np.float32)  # the best keyword's frame, [classes]
        self._sustained = np.zeros(len(self._others))  # the highest means so far
        self._past: NDArray[Any] = np.zeros((self._frames - 1, len(self._others)))
        self._final: dict[int, float] = {}  # the highest ones so far, by class

    @classmethod
    def for_model(cls, model: SpotterModel) -> Self:
        """Create a classifier for one clip that is scored by this model."""
        meta = model.metadata
        frame_ms = meta.frame_samples * 1000 / meta.sample_rate_hz
        return cls(len(meta.labels), meta.keyword_indices, model.silence_index, frame_ms)

    def push(self, scores: Float32Array) -> None:
        """Add the scores of the next frames, [frames, classes]."""
        best = scores[scores[:, self._keywords].max(axis=1).argmax()]
        # Of equal frames the first one counts, so that the result does not depend on the chunks.
        if best[self._keywords].max() > self._best[self._keywords].max():
            self._best = best.copy()
        others = np.concatenate((self._past, scores[:, self._others]))
        means = sliding_window_view(others, self._frames, axis=0).mean(axis=-1)  # [windows, others]
        self._sustained = np.maximum(self._sustained, means.max(axis=0))
        self._past = others[others.shape[0] - self._past.shape[0] :]

    def add_finals(self, scores: Mapping[int, float]) -> None:
        """Add the verifier's final scores of the keywords of one peak, 0 to 1, by class index."""
        for index, score in scores.items():
            self._final[index] = max(score, self._final.get(index, 0.0))

    @property
    def scores(self) -> Float32Array:
        """The score of every class, [classes]; the sum is 1."""
        scores = self._first_scores()
        if self._final:
            classes = list(self._final)
            final = np.array([self._final[i] for i in classes])
            final = _CLIP_ODDS * final / (1 + (_CLIP_ODDS - 1) * final)
            final /= max(1.0, final.sum())
            rest = max(0.0, 1 - final.sum())  # rounding can make the sum larger than 1
            scores[classes] = 0
            others = scores.sum()
            if others > 0:
                scores *= rest / others
            else:
                scores[self._silence] = rest
            scores[classes] = final
        return scores

    def _first_scores(self) -> Float32Array:
        scores = self._best.copy()
        # The scores of keywords that were added to a trained network do not lower the others.
        scores[self._keywords] /= max(1.0, scores[self._keywords].sum())
        rest = max(0.0, 1 - scores[self._keywords].sum())
        share = self._sustained**_SHARPNESS
        share /= max(1.0, share.sum())
        scores[self._others] = rest * share
        scores[self._silence] = rest * max(0.0, 1 - share.sum())
        return scores
