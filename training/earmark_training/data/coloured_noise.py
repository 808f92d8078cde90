"""Synthetic noise of several colours, for data without recordings of noise."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from earmark_training.output_files import replace_file

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_RATE_HZ = 16_000
NOISE_COLOURS = {"white": 0.0, "pink": 1.0, "brown": 2.0}
"""Each colour with the power of the frequency by which its spectral density falls."""
_SECONDS = 60


def coloured_noise(rng: np.random.Generator, length: int, slope: float) -> NDArray[np.float32]:
    """Return noise of unit power whose spectral density falls as frequency to the power `slope`, [length]."""
    pieces = []
    for start in range(0, length, 1 << 20):
        count = min(1 << 20, length - start)
        spectrum = np.fft.rfft(rng.standard_normal(count))
        hz = np.fft.rfftfreq(count, 1 / _RATE_HZ)
        shaped = np.fft.irfft(spectrum * np.maximum(hz, 20.0) ** (-slope / 2), count)
        pieces.append(shaped / np.sqrt(np.square(shaped).mean()))
    return np.concatenate(pieces).astype(np.float32)


def write_noises(out: Path) -> list[Path]:
    """Write a minute of noise of each colour into the folder `out`, and return the files.

    Raises OutputError if a file cannot be written.
    """
    import soundfile

    out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    files = []
    for name, slope in NOISE_COLOURS.items():
        # In memory first: an error of libsndfile does not say why a file cannot be written.
        content = io.BytesIO()
        noise = 0.1 * coloured_noise(rng, _SECONDS * _RATE_HZ, slope)
        soundfile.write(content, noise, _RATE_HZ, format="WAV")
        files.append(out / f"{name}.wav")
        replace_file(files[-1], content.getbuffer())
    return files
