"""Variation of log-mel features: other vocal tracts, other rhythms, other microphones."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from earmark_training.model.speech_embedding import MEL_FLOOR

_SHARE = 0.7  # of the examples, for each kind of variation
_VOCAL_TRACT, _SHIFT = (0.86, 1.16), 0.8  # mel bands: their scale, and their shift
_RHYTHM_FRAMES, _RHYTHM_KNOTS = 6.0, 20  # largest displacement; frames for each one
_TONE_DB, _TONE_KNOTS = 8.0, 6


def vary_mel(rng: np.random.Generator, mel: Tensor) -> Tensor:
    """Return log10-mel (batch, frames, mels) with each example varied at random.

    The bands are scaled as by a longer or shorter vocal tract (Jaitly and Hinton 2013), the time axis is
    stretched and compressed by up to 60 ms, and a smooth frequency response is added.
    """
    return torch.stack([_vary(rng, example) for example in mel])


def _vary(rng: np.random.Generator, mel: Tensor) -> Tensor:
    frames, bands = mel.shape
    if rng.random() < _SHARE:
        places = np.arange(bands) * rng.uniform(*_VOCAL_TRACT) + rng.uniform(-_SHIFT, _SHIFT)
        mel = _interpolate(mel.T, places).T
    if rng.random() < _SHARE:
        knots = frames // _RHYTHM_KNOTS + 2
        moved = np.interp(
            np.arange(frames),
            np.linspace(0, frames, knots),
            rng.uniform(-_RHYTHM_FRAMES, _RHYTHM_FRAMES, knots),
        )
        mel = _interpolate(mel, np.arange(frames) + moved)
    if rng.random() < _SHARE:
        level_db = np.interp(
            np.linspace(0, _TONE_KNOTS - 1, bands),
            np.arange(_TONE_KNOTS),
            rng.uniform(-_TONE_DB, _TONE_DB, _TONE_KNOTS),
        )
        gain = torch.from_numpy(10 ** (level_db / 10)).float()
        mel = torch.log10(10 ** (mel - 2) * gain + MEL_FLOOR) + 2
    return mel


def _interpolate(rows: Tensor, places: np.ndarray) -> Tensor:
    """Return the rows at fractional places; the first or last row beyond the ends."""
    places = np.clip(places, 0, len(rows) - 1)
    left = places.astype(int)
    right = np.minimum(left + 1, len(rows) - 1)
    weight = torch.from_numpy((places - left).astype(np.float32))[:, None]
    return rows[left] * (1 - weight) + rows[right] * weight
