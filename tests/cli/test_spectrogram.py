"""The mel spectrogram of `earmark plot`."""

from __future__ import annotations

import numpy as np
import pytest
from earmark_cli.plot.spectrogram import BANDS, band_hz, mel_spectrogram


@pytest.mark.parametrize("rate_hz", [8000, 16_000, 48_000])
@pytest.mark.parametrize("tone_hz", [150, 440, 1000, 3000])
def test_a_tone_is_brightest_in_its_band(rate_hz: int, tone_hz: float) -> None:
    tone = 10_000 * np.sin(2 * np.pi * tone_hz * np.arange(rate_hz) / rate_hz)
    mel = mel_spectrogram(tone.astype(np.int16), rate_hz, 50)
    assert mel.shape == (BANDS, 50)
    expected = np.abs(band_hz()[1:-1] - tone_hz).argmin()
    # A window of 25 ms resolves tones that are 80 Hz apart.
    assert abs(band_hz()[1:-1][mel[:, 25].argmax()] - tone_hz) < 60, expected
    assert mel[:, 25].max() > 250
    assert mel[-1, 25] < 60


def test_bands_above_half_the_sample_rate_are_empty() -> None:
    noise = np.random.default_rng(1).integers(-10_000, 10_000, 8000, dtype=np.int16)
    mel = mel_spectrogram(noise, 8000, 20)
    assert not mel[band_hz()[1:-1] > 4400].any()
    assert mel[band_hz()[1:-1] < 3600].min() > 100
