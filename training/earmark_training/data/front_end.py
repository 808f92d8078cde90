"""The acoustic front end: PCM samples to log-mel energies.

The network begins with it, and the training features are computed with it, so both agree exactly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchaudio.functional import melscale_fbanks

LOG_FLOOR = 1e-6
"""Added to mel energies: about the energy of a 16-bit recording's last bit."""


@dataclass(frozen=True, slots=True)
class FrontEnd:
    """The geometry of the front end: a window of two hops, and the mel bands."""

    sample_rate_hz: int = 16_000
    window_samples: int = 320
    hop_samples: int = 160
    mels: int = 40
    low_hz: float = 60.0
    high_hz: float = 7_600.0

    def __post_init__(self) -> None:
        if self.window_samples != 2 * self.hop_samples or self.window_samples % 4:
            raise ValueError("the window must be two hops long, and each hop an even number of samples")


@dataclass(frozen=True, slots=True)
class ScoreWindow:
    """Which mel frames a network computes its scores from."""

    mel_frames: int
    """Mel frames that one score depends on."""
    stride: int
    """Mel frames from one score to the next."""


class LogMel(nn.Module):
    """PCM (batch, samples) to log-mel energies (batch, frames, mels).

    The Fourier transform is folded twice, by its symmetries about the middle and about the quarters of the
    window. Cosines and sines of the even and of the odd bins are each a matrix product with a quarter of the
    window: half the multiplications of one fold, a quarter of those of the plain transform. A window is two
    hops, so each hop is split and reversed once for the two windows that contain it.
    """

    window: Tensor
    even: Tensor
    odd: Tensor
    mel: Tensor

    def __init__(self, front_end: FrontEnd, floor: float = LOG_FLOOR) -> None:
        super().__init__()
        self.floor = floor
        n, rate = front_end.window_samples, front_end.sample_rate_hz
        bins = torch.arange(
            math.ceil(front_end.low_hz * n / rate), math.floor(front_end.high_hz * n / rate) + 1
        )
        self.first_odd = 1 - int(bins[0]) % 2
        time = torch.arange(n // 4, dtype=torch.float64) - (n - 1) / 2
        a, b, c, d = torch.hann_window(n, periodic=False, dtype=torch.float64).chunk(4)
        window = torch.stack((a, c, b.flip(0), d.flip(0)))  # in the order in which `forward` uses them
        angle = 2 * math.pi / n * time[:, None] * bins[None, :]
        basis = torch.stack((angle.cos(), angle.sin()))  # (2, n / 4, bins)
        mel = melscale_fbanks(
            n // 2 + 1, front_end.low_hz, front_end.high_hz, front_end.mels, rate, norm=None, mel_scale="htk"
        )
        self.register_buffer("window", window.float(), persistent=False)
        self.register_buffer("even", basis[..., 1 - self.first_odd :: 2].float(), persistent=False)
        self.register_buffer("odd", basis[..., self.first_odd :: 2].float(), persistent=False)
        self.register_buffer("mel", mel[bins], persistent=False)  # (bins, mels)
        self.hop = front_end.hop_samples

    def forward(self, pcm: Tensor) -> Tensor:
        """Return log-mel energies (batch, frames, mels) of PCM (batch, window + (frames - 1) * hop)."""
        hops = pcm.reshape(pcm.shape[0], -1, self.hop)
        left, right = hops[..., : self.hop // 2], hops[..., self.hop // 2 :].flip(-1)
        a, c = left[:, :-1] * self.window[0], left[:, 1:] * self.window[1]  # (B, T, n / 4)
        b, d = right[:, :-1] * self.window[2], right[:, 1:] * self.window[3]
        ahead, reversed_ = a + c, b + d
        even = _power((ahead + reversed_) @ self.even[0], (ahead - reversed_) @ self.even[1])
        ahead, reversed_ = a - c, b - d
        odd = _power((ahead - reversed_) @ self.odd[0], (ahead + reversed_) @ self.odd[1])
        mel = even @ self.mel[1 - self.first_odd :: 2] + odd @ self.mel[self.first_odd :: 2]
        return torch.log(mel + self.floor)


def _power(cosines: Tensor, sines: Tensor) -> Tensor:
    return cosines * cosines + sines * sines  # ONNX Runtime's Pow needs twice as long
