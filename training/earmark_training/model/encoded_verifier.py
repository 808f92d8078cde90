"""The verifier's network on features of the speech encoder: with keyword and score to the final score."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from earmark_spotter.metadata import TrainingSource
from earmark_spotter.speech_encoder import bundled_speech_encoder
from torch import Tensor, nn

from earmark_training.model.onnx_file import export_graph

if TYPE_CHECKING:
    from numpy.typing import NDArray

FRAMES, WIDTH = 30, 288
"""The shape of the features of a window."""

ENCODER_SOURCE = TrainingSource(
    "the encoder of Moonshine tiny-en (arXiv 2410.15608), whose features the verifier needs",
    "MIT",
    "Moonshine AI",
)


class EncodedVerifier(nn.Module):
    """Features (batch, FRAMES, WIDTH) to logits (batch, 1 + keywords): class 0 is none, then the keywords."""

    fusion: Tensor

    def __init__(self, keywords: int, channels: int, *, dropout: float = 0.3) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(WIDTH, affine=False)
        self.c1, self.b1 = nn.Conv1d(WIDTH, channels, 3, padding=1), nn.BatchNorm1d(channels)
        self.c2 = nn.Conv1d(channels, channels, 3, stride=2, padding=1)
        self.b2 = nn.BatchNorm1d(channels)
        self.fc1, self.bf = nn.Linear(channels * (FRAMES // 2), channels), nn.BatchNorm1d(channels)
        self.fc2 = nn.Linear(channels, 1 + keywords)
        self.drop = nn.Dropout(dropout)
        self.register_buffer("fusion", torch.tensor([1.0, 1.0, 0.0]))
        """The weights of the log-odds of the score so far and of the network's, and the constant."""

    def logits(self, features: Tensor) -> Tensor:
        """Return the logits."""
        x = torch.relu(self.b1(self.c1(self.norm(features.transpose(1, 2)))))
        x = torch.relu(self.b2(self.c2(self.drop(x))))
        hidden = torch.relu(self.bf(self.fc1(self.drop(x.flatten(1)))))
        return cast("Tensor", self.fc2(self.drop(hidden)))

    def forward(self, features: Tensor, index: Tensor, score: Tensor) -> Tensor:
        """Return the final scores (batch).

        index (batch): the class among the labels, where silence and unknown come before the keywords;
        score (batch): the score so far.
        """
        odds = log_odds_of(self.logits(features), index - 1)
        return fused(self.fusion, log_odds_so_far(score), odds)


def log_odds_so_far(score: Tensor) -> Tensor:
    """Return the log-odds of scores, limited so that this network can reject any proposal."""
    return torch.logit(score, 1e-4)


def fused(fusion: Tensor, before: Tensor, odds: Tensor) -> Tensor:
    """Return the final scores (batch) from log-odds (batch): those before a network, and its own."""
    return torch.sigmoid(fusion[0] * before + fusion[1] * odds + fusion[2])


def log_odds_of(logits: Tensor, index: Tensor) -> Tensor:
    """Return the log-odds of one class of each row against all others, (batch)."""
    chosen = torch.arange(logits.shape[1]) == index[:, None]
    others = logits.masked_fill(chosen, -1e9).logsumexp(1)
    return (logits * chosen).sum(1) - others


def encode(pcm: NDArray[np.float32]) -> NDArray[np.float16]:
    """Return the features [FRAMES, WIDTH] of the last 1.5 s of the audio, [n], of any length."""
    encoder = bundled_speech_encoder()
    missing = max(0, encoder.window_samples - len(pcm))
    return encoder.features(np.pad(pcm, (missing, 0))).astype(np.float16)


def to_onnx(network: EncodedVerifier) -> bytes:
    """Return the network as an ONNX file for any batch size."""
    return export_verifier(network, "features", torch.zeros(2, FRAMES, WIDTH))


def export_verifier(network: nn.Module, name: str, example: Tensor) -> bytes:
    """Return a graph of a verifier as an ONNX file for any batch size.

    name, example: the input beside class and score, and a batch of two of it.
    """
    batch = torch.export.Dim("batch", min=1)
    graph = export_graph(
        network,
        (example, torch.tensor([2, 2]), torch.tensor([0.5, 0.5])),
        input_names=[name, "class", "score"],
        output_names=["final_score"],
        dynamic_shapes=({0: batch}, {0: batch}, {0: batch}),
    )
    return graph.SerializeToString()
