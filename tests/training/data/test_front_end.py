from __future__ import annotations

import pytest
import torch
from earmark_training.data.front_end import LOG_FLOOR, FrontEnd, LogMel
from torchaudio.functional import melscale_fbanks


@pytest.mark.parametrize("low_hz", [60.0, 120.0])  # the first bin is even, and odd
def test_log_mel_equals_that_of_the_fourier_transform(low_hz: float):
    front_end = FrontEnd(low_hz=low_hz)
    n, hop = front_end.window_samples, front_end.hop_samples
    pcm = torch.randn(2, 5 * hop, dtype=torch.float64) * 0.1
    frames = pcm.unfold(1, n, hop) * torch.hann_window(n, periodic=False, dtype=torch.float64)
    power = torch.fft.rfft(frames).abs().square()
    mel = melscale_fbanks(
        n // 2 + 1,
        low_hz,
        front_end.high_hz,
        front_end.mels,
        front_end.sample_rate_hz,
        norm=None,
        mel_scale="htk",
    )
    expected = torch.log(power @ mel.double() + LOG_FLOOR).float()
    assert expected.shape == (2, 4, front_end.mels)
    torch.testing.assert_close(LogMel(front_end)(pcm.float()), expected, atol=1e-4, rtol=0)


def test_a_window_of_other_than_two_hops_is_rejected():
    with pytest.raises(ValueError, match="two hops"):
        FrontEnd(window_samples=400)
