"""The verifier's network: a window of PCM, the keyword and the first network's score to the final score.

Its body is the speech embedding of Lin et al. 2020 (arXiv 2002.01322), which Google trained on a large
number of speakers and published under Apache-2.0. Here it is fine-tuned, together with a new head. The final
score is a logistic function of the first network's log-odds and of the head's.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torchaudio.functional import melscale_fbanks

from earmark_training.model.checkpoint import loaded_state
from earmark_training.model.encoded_verifier import export_verifier, fused, log_odds_of
from earmark_training.model.speech_embedding import SpeechEmbedding as PretrainedEmbedding

if TYPE_CHECKING:
    from pathlib import Path

SAMPLE_RATE_HZ, HOP_SAMPLES = 16_000, 160
_FFT_SAMPLES, _WINDOW_SAMPLES = 512, 400
_MELS, _LOW_HZ, _HIGH_HZ = 32, 60.0, 3_800.0
_RANGE = 8.0
"""Log-mel is limited to 80 dB below the loudest value in the window; one unit is 10 dB."""
FRAMES = 148
"""Mel frames in a window: 1.5 s, for ten embeddings."""

_FLOOR = -0.4
_EMBEDDING, _CHANNELS, _STEPS = 96, 128, 10


def window_samples(frames: int = FRAMES) -> int:
    """Return the samples that a number of mel frames depends on."""
    return _FFT_SAMPLES + (frames - 1) * HOP_SAMPLES


class SpeechMel(nn.Module):
    """PCM (batch, samples) to log-mel (batch, frames, 32), as the speech embedding expects it."""

    basis: Tensor
    mel: Tensor

    def __init__(self) -> None:
        super().__init__()
        mel = melscale_fbanks(
            _FFT_SAMPLES // 2 + 1, _LOW_HZ, _HIGH_HZ, _MELS, SAMPLE_RATE_HZ, norm="slaney", mel_scale="slaney"
        )
        used = mel.any(dim=1)
        bins = torch.arange(len(mel))[used]
        time = torch.arange(_WINDOW_SAMPLES, dtype=torch.float64)
        angle = 2 * math.pi / _FFT_SAMPLES * bins[:, None] * time
        # The embedding was trained with the samples of 16-bit PCM.
        window = torch.hann_window(_WINDOW_SAMPLES, dtype=torch.float64) * 32_768
        basis = torch.cat((angle.cos(), angle.sin())) * window
        self.register_buffer("basis", basis.float().unsqueeze(1), persistent=False)  # (2 * bins, 1, window)
        self.register_buffer("mel", mel[used], persistent=False)  # (bins, mels)

    def forward(self, pcm: Tensor) -> Tensor:
        """Return log-mel of PCM (batch, window_samples(frames))."""
        margin = (_FFT_SAMPLES - _WINDOW_SAMPLES) // 2
        waves = nn.functional.conv1d(
            pcm[:, margin:-margin].unsqueeze(1), self.basis, stride=HOP_SAMPLES
        )  # (B, 2 * bins, T)
        cosines, sines = (waves * waves).chunk(2, dim=1)
        power = (cosines + sines).transpose(1, 2) @ self.mel
        return limit_range(torch.log10(power.clamp(min=1e-10)) + 2)


def limit_range(mel: Tensor) -> Tensor:
    """Limit log-mel (batch, frames, mels) to the range below its maximum that the embedding knows."""
    return torch.maximum(mel, mel.amax((1, 2), keepdim=True) - _RANGE)


class _Activation(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.leaky_relu(x, 0.2).clamp(min=_FLOOR)


class SpeechEmbedding(nn.Module):
    """Log-mel (batch, frames, 32) to one embedding every 80 ms, (batch, (frames - 76) / 8 + 1, 96)."""

    def __init__(self) -> None:
        super().__init__()
        # Channels, and the pooling (time, frequency) after each group of layers.
        groups = ((24, (2, 2)), (48, (1, 2)), (72, (2, 2)), (96, (1, 2)), (96, (2, 2)))
        layers: list[nn.Module] = [nn.Conv2d(1, 24, 3, padding=(0, 1)), _Activation()]
        inputs = 24
        for number, (channels, pool) in enumerate(groups):
            for size in (inputs, channels)[: 1 if number == 0 else 2]:
                layers += [nn.Conv2d(size, channels, (1, 3), padding=(0, 1)), _Activation()]
                layers += [nn.Conv2d(channels, channels, (3, 1)), _Activation()]
            layers.append(nn.MaxPool2d(pool))
            inputs = channels
        layers.append(nn.Conv2d(inputs, _EMBEDDING, (3, 1), bias=False))
        self.layers = nn.Sequential(*layers)

    def forward(self, mel: Tensor) -> Tensor:
        """Return the embeddings of log-mel."""
        return cast("Tensor", self.layers(mel.unsqueeze(1))).squeeze(-1).transpose(1, 2)

    @torch.no_grad()
    def load_pretrained(self) -> None:
        """Load the weights that `earmark-train keyword` uses as they are."""
        pretrained = PretrainedEmbedding()
        convolutions = [layer for layer in self.layers if isinstance(layer, nn.Conv2d)]
        for number, layer in enumerate(convolutions):
            layer.weight.copy_(pretrained.get_buffer(f"weight_{number}"))
            if layer.bias is not None:
                layer.bias.copy_(pretrained.get_buffer(f"bias_{number}"))


class Head(nn.Module):
    """Ten embeddings (batch, 10, 96) to logits (batch, classes): class 0 is none, then the keywords."""

    def __init__(self, classes: int, dropout: float = 0.2) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(_EMBEDDING, affine=False)
        self.c1, self.b1 = nn.Conv1d(_EMBEDDING, _CHANNELS, 3, padding=1), nn.BatchNorm1d(_CHANNELS)
        self.c2, self.b2 = nn.Conv1d(_CHANNELS, _CHANNELS, 3, padding=1), nn.BatchNorm1d(_CHANNELS)
        self.fc1, self.bf = nn.Linear(_CHANNELS * _STEPS, _CHANNELS), nn.BatchNorm1d(_CHANNELS)
        self.fc2 = nn.Linear(_CHANNELS, classes)
        self.drop = nn.Dropout(dropout)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Return the logits."""
        x = self.norm(embeddings.transpose(1, 2))
        x = torch.relu(self.b1(self.c1(x)))
        x = torch.relu(x + self.b2(self.c2(self.drop(x))))
        hidden = torch.relu(self.bf(self.fc1(self.drop(x.flatten(1)))))
        return cast("Tensor", self.fc2(self.drop(hidden)))


class VerifierNetwork(nn.Module):
    """The whole verifier: see the module's docstring."""

    fusion: Tensor

    def __init__(self, keywords: int) -> None:
        super().__init__()
        self.mel, self.embedding, self.head = SpeechMel(), SpeechEmbedding(), Head(1 + keywords)
        self.register_buffer("fusion", torch.tensor([1.0, 1.0, 0.0]))
        """The weights of the first network's log-odds and of the head's, and the constant."""

    def logits(self, mel: Tensor) -> Tensor:
        """Return the head's logits (batch, 1 + keywords) for log-mel (batch, FRAMES, 32)."""
        return cast("Tensor", self.head(self.embedding(mel).float()))

    def forward(self, pcm: Tensor, index: Tensor, score: Tensor) -> Tensor:
        """Return the final scores (batch).

        pcm (batch, window_samples()); index (batch): the class among the labels, where silence and unknown
        come before the keywords; score (batch): the first network's.
        """
        odds = log_odds_of(self.logits(self.mel(pcm)), index - 1)
        return fused(self.fusion, first_log_odds(score), odds)


def first_log_odds(score: Tensor) -> Tensor:
    """Return the log-odds of the first network's scores."""
    return torch.logit(score, 1e-6)


def to_onnx(network: VerifierNetwork) -> bytes:
    """Return the network as an ONNX file for any batch size."""
    return export_verifier(network, "pcm", torch.zeros(2, window_samples()))


@torch.no_grad()
def from_onnx(graph: bytes, mel: Tensor) -> VerifierNetwork:
    """Return the network of an ONNX file of `to_onnx`, to be trained further.

    mel: log-mel of windows (batch, FRAMES, 32). The file has no batch normalization behind convolutions and
    linear layers, so here it has the mean and the variance of these windows, and leaves them as they are.
    """
    weights = {w.name: numpy_helper.to_array(w) for w in onnx.load_from_string(graph).graph.initializer}
    network = VerifierNetwork(len(weights["head.fc2.bias"]) - 1).eval()
    state = network.state_dict()
    state |= {name: torch.from_numpy(weights[name].copy()) for name in state if name in weights}
    network.load_state_dict(state)
    head = network.head
    layers: tuple[tuple[nn.Module, nn.BatchNorm1d], ...]
    layers = (head.c1, head.b1), (head.c2, head.b2), (head.fc1, head.bf)
    for layer, norm in layers:
        found: list[Tensor] = []
        hook = layer.register_forward_hook(lambda _layer, _inputs, output, found=found: found.append(output))
        network.logits(mel)
        hook.remove()
        variance, mean = torch.var_mean(found[0].transpose(0, 1).flatten(1), 1, correction=0)
        for value, set_to in (
            (norm.running_mean, mean),
            (norm.bias, mean),
            (norm.running_var, variance),
            (norm.weight, (variance + norm.eps).sqrt()),
        ):
            cast("Tensor", value).copy_(set_to)
    return network


def load(path: Path) -> VerifierNetwork:
    """Load a trained verifier. Raises RecipeError if the file is damaged, or of another kind."""
    with loaded_state(path, "verifier") as state:
        network = VerifierNetwork(len(state["head.fc2.bias"]) - 1)
        network.load_state_dict(state)
    return network.eval()
