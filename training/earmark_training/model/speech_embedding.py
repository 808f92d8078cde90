"""A keyword network on Google's speech embedding, which was trained on the speech of very many people.

Lin et al. 2020 (arXiv 2002.01322) trained the embedding to tell thousands of words apart. It turns 0.78 s of
audio into 96 numbers, every 80 ms. `scripts/train_noise_robust_embedding.py` fine-tuned it so that speech in
noise, among talkers and in rooms is embedded nearly as without them. Nothing else of it is trained: only the
head, two convolutions over the last embeddings. A head that has learned from synthetic voices alone then
detects people too.

`forward(pcm, state) -> (scores, next_state)` is the whole model as it is served, as in `model.network`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Iterator

WEIGHTS = "speech_embedding.npz"
"""The weights, in half precision, and the mean and deviation of the published embedding in read speech."""

_MELS, _WINDOW, _HOP = 32, 400, 160
_EMBEDDING, _EMBEDDING_MELS, _MELS_PER_EMBEDDING = 96, 76, 8
MEL_FLOOR = 100.0
"""Added to a mel energy of 16-bit samples: the level of a quiet room."""

_TIME, _FREQUENCY = (3, 1), (1, 3)
_POOL, _POOL_FREQUENCY = (2, 2), (1, 2)
_PAIR = (_FREQUENCY, _TIME)
_LAYERS = (
    *(*_PAIR, _POOL),
    *(*_PAIR, *_PAIR, _POOL_FREQUENCY),
    *(*_PAIR, *_PAIR, _POOL),
    *(*_PAIR, *_PAIR, _POOL_FREQUENCY),
    *(*_PAIR, *_PAIR, _POOL),
    _TIME,
)
"""After a first convolution over both axes: the kernels of the others, and the pooling between them."""

_PAST = 2
"""The inputs that a convolution over time keeps."""


@dataclass(frozen=True, slots=True)
class EmbeddingShape:
    """The shape of a keyword network on the embedding."""

    classes: int
    helpers: int = 0
    """Other words that the network tells apart; their probability is part of that of unknown speech."""
    channels: int = 48
    embeddings: int = 16
    """The successive embeddings that one unsmoothed score depends on."""
    smoothing_frames: int = 2
    sample_rate_hz: int = 16_000

    @property
    def frame_samples(self) -> int:
        """Samples from one score to the next."""
        return _HOP * _MELS_PER_EMBEDDING

    @property
    def unsmoothed_receptive_field_samples(self) -> int:
        """Samples that one unsmoothed score depends on."""
        return _WINDOW + _HOP * (_EMBEDDING_MELS - 1) + self.frame_samples * (self.embeddings - 1)

    @property
    def receptive_field_samples(self) -> int:
        """Samples that one score depends on."""
        return self.unsmoothed_receptive_field_samples + (self.smoothing_frames - 1) * self.frame_samples


class SpeechEmbedding(nn.Module):
    """PCM to log-mel, and log-mel to embeddings; nothing of it is trained."""

    def __init__(self) -> None:
        super().__init__()
        with resources.files("earmark_training.model").joinpath(WEIGHTS).open("rb") as file:
            stored = {k: torch.from_numpy(v.astype(np.float32)) for k, v in np.load(file).items()}
        for name, value in stored.items():
            # Convolutions are faster in this layout.
            layout = torch.channels_last if value.dim() == 4 else torch.contiguous_format
            self.register_buffer(name, value.contiguous(memory_format=layout))

    def _get(self, name: str) -> Tensor:
        return self.get_buffer(name)

    def log_mel(self, pcm: Tensor) -> Tensor:
        """Return log-mel (batch, frames, mels) of PCM (batch, 400 + (frames - 1) * 160)."""
        real, imaginary = nn.functional.conv1d(pcm.unsqueeze(1), self._get("waves"), stride=_HOP).chunk(2, 1)
        power = real * real + imaginary * imaginary
        return torch.log10(power.transpose(1, 2) @ self._get("mel") + MEL_FLOOR) + 2

    def past_shapes(self) -> Iterator[tuple[int, int, int]]:
        """Yield (channels, time, mel bands) of the inputs that each convolution over time keeps."""
        bands, number = _MELS, 0
        yield 1, _PAST, bands
        for layer in _LAYERS:
            if layer in (_POOL, _POOL_FREQUENCY):
                bands //= 2
            else:
                number += 1
                if layer is _TIME:
                    yield self._get(f"weight_{number}").shape[1], _PAST, bands

    def forward(self, mel: Tensor, past: list[Tensor] | None = None) -> tuple[Tensor, list[Tensor]]:
        """Return normalised embeddings (batch, n, 96) of log-mel (batch, 8 * n, mels), and the next past.

        Without a past, the first 68 frames of mel are the past of the first embedding.
        """
        following: list[Tensor] = []

        def with_past(x: Tensor) -> Tensor:
            if past is None:
                return x
            joined = torch.cat((past[len(following)], x), dim=2)
            following.append(joined[:, :, -_PAST:])
            return joined

        x = nn.functional.conv2d(
            with_past(mel.unsqueeze(1)), self._get("weight_0"), self._get("bias_0"), padding=(0, 1)
        )
        x = _activate(x)
        number = 0
        for layer in _LAYERS:
            if layer in (_POOL, _POOL_FREQUENCY):
                x = nn.functional.max_pool2d(x, layer, layer)
                continue
            number += 1
            weight, bias = self._get(f"weight_{number}"), self._get(f"bias_{number}")
            if layer is _TIME:
                x = nn.functional.conv2d(with_past(x), weight, bias)
            else:
                x = nn.functional.conv2d(x, weight, bias, padding=(0, 1))
            if f"weight_{number + 1}" in self._buffers:  # the last one has no activation
                x = _activate(x)
        embeddings = x.squeeze(3).transpose(1, 2).float()
        return (embeddings - self._get("mean")) * self._get("scale"), following


def _activate(x: Tensor) -> Tensor:
    return nn.functional.leaky_relu(x, 0.2).clamp(min=-0.4)


class EmbeddingNetwork(nn.Module):
    """The embedding and a head: the whole model. The head alone has parameters."""

    def __init__(self, shape: EmbeddingShape) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = SpeechEmbedding()
        self.narrow = nn.Conv1d(_EMBEDDING, shape.channels, 3)
        self.join = nn.Conv1d(shape.channels, shape.channels, shape.embeddings - 2)
        self.head = nn.Conv1d(shape.channels, shape.classes + shape.helpers, 1)
        self.dropout = nn.Dropout(0.3)

    @property
    def _past_shapes(self) -> list[tuple[int, ...]]:
        """The shape of each part of one stream's state."""
        s = self.shape
        return [
            (_WINDOW - _HOP,),
            *self.embedding.past_shapes(),
            (s.embeddings - 1, _EMBEDDING),
            (s.smoothing_frames - 1, s.classes),
        ]

    @property
    def state_size(self) -> int:
        """The number of floats in the state of one stream."""
        return sum(map(math.prod, self._past_shapes))

    def logits(self, embeddings: Tensor) -> Tensor:
        """Return the logits (batch, n, classes + helpers) of embeddings.

        embeddings: (batch, n + shape.embeddings - 1, 96).
        """
        x = torch.relu(self.narrow(self.dropout(embeddings.transpose(1, 2))))
        x = torch.relu(self.join(self.dropout(x)))
        return cast("Tensor", self.head(self.dropout(x))).transpose(1, 2)

    def forward(self, pcm: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the scores and the next state of one inference step, as it is served.

        pcm (batch, n * frame_samples), state (batch, state_size) ->
        scores (batch, n, classes), probabilities smoothed over `smoothing_frames`; next_state like state.
        """
        shapes = self._past_shapes
        parts = torch.split(state, [math.prod(s) for s in shapes], dim=1)
        first, *inner, embeddings, scores = (
            part.reshape(-1, *shape) for part, shape in zip(parts, shapes, strict=True)
        )
        joined = torch.cat((first, pcm), dim=1)
        new, inner = self.embedding(self.embedding.log_mel(joined), inner)
        window = torch.cat((embeddings, new), dim=1)
        posteriors = self.logits(window).softmax(-1)
        if self.shape.helpers:
            posteriors, helpers = posteriors[..., : self.shape.classes], posteriors[..., self.shape.classes :]
            unknown = posteriors[..., 1:2] + helpers.sum(-1, keepdim=True)
            posteriors = torch.cat((posteriors[..., :1], unknown, posteriors[..., 2:]), -1)
        score_window = torch.cat((scores, posteriors), dim=1)
        smoothed = nn.functional.avg_pool2d(
            score_window.unsqueeze(1), (self.shape.smoothing_frames, 1), stride=1
        ).squeeze(1)
        past = (
            joined[:, -(_WINDOW - _HOP) :],
            *inner,
            window[:, -(self.shape.embeddings - 1) :],
            score_window[:, -(self.shape.smoothing_frames - 1) :],
        )
        return smoothed, torch.cat([p.flatten(1) for p in past], dim=1)

    @torch.no_grad()
    def silent_state(self) -> Tensor:
        """Return the state (1, state_size) after digital silence longer than the receptive field."""
        frames = self.shape.receptive_field_samples // self.shape.frame_samples + 2
        training = self.training
        state = self.eval()(
            torch.zeros(1, frames * self.shape.frame_samples), torch.zeros(1, self.state_size)
        )[1]
        self.train(training)
        return cast("Tensor", state)
