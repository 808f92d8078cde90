from __future__ import annotations

import numpy as np
import pytest
from earmark_audio.endpointing import locate_word, speech_frames


def test_a_word_is_located_by_its_energy():
    rng = np.random.default_rng(0)
    clip = (rng.standard_normal(16_000) * 1e-3).astype(np.float32)
    clip[5_000:9_000] += np.sin(np.arange(4_000) * 0.2).astype(np.float32) * 0.3
    word = locate_word(clip, 16_000)
    assert word is not None
    assert abs(word[0] - 5_000) <= 800
    assert abs(word[1] - 9_000) <= 800


def test_a_plosive_does_not_end_a_word():
    clip = np.full(16_000, 1e-3, np.float32)
    clip[4_000:6_000] = 0.3
    clip[7_200:9_000] = 0.3  # after a closure of 75 ms
    word = locate_word(clip, 16_000)
    assert word is not None
    assert word[0] <= 4_000
    assert word[1] >= 9_000


@pytest.mark.parametrize("clip", [np.zeros(16_000), np.full(16_000, 0.3), np.ones(100)])
def test_no_word_is_located_if_nothing_stands_out(clip: np.ndarray):
    assert locate_word(clip.astype(np.float32), 16_000) is None


def test_speech_frames_are_those_far_above_the_noise_floor():
    samples = np.full(16_000, 1e-3, np.float32)
    samples[4_000:8_000] = 0.1
    speech = np.flatnonzero(speech_frames(samples, 16_000))
    assert 22 <= speech[0] <= 25
    assert 49 <= speech[-1] <= 52
    assert len(speech) == speech[-1] - speech[0] + 1
