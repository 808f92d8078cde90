from __future__ import annotations

import numpy as np
import pytest
from earmark_training.data.transcripts import is_spoken_at, place_words

RATE = 16_000


def speech(*seconds: tuple[float, bool]) -> np.ndarray:
    """Return noise that is loud in the parts with speech, and quiet in the others."""
    rng = np.random.default_rng(0)
    pieces = [rng.normal(0, 0.1 if loud else 1e-4, int(s * RATE)) for s, loud in seconds]
    return np.concatenate(pieces).astype(np.float32)


def test_words_share_the_speech_by_their_letters():
    samples = speech((0.5, False), (2.0, True), (0.5, False))
    words = place_words(samples, "AAAA BBBBBBBB BBBB")  # 6 + 10 + 6 of 22
    assert [w.text for w in words] == ["aaaa", "bbbbbbbb", "bbbb"]
    edges = [words[0].start, *(w.end for w in words)]
    expected = [0.5, 0.5 + 2 * 6 / 22, 0.5 + 2 * 16 / 22, 2.5]
    np.testing.assert_allclose(np.array(edges) / RATE, expected, atol=0.06)


def test_the_words_of_an_incomplete_transcript_may_be_anywhere():
    samples = speech((0.3, False), (1.0, True))
    words = place_words(samples, "... LEFT STOP")
    assert [(w.text, w.start, w.end) for w in words] == [(w, 0, len(samples)) for w in ("left", "stop")]


def test_a_pause_belongs_to_no_word():
    samples = speech((0.3, False), (1.0, True), (2.0, False), (1.0, True), (0.3, False))
    first, second = place_words(samples, "left stop")
    assert first.end / RATE == pytest.approx(1.3, abs=0.1)
    assert (second.start + second.end) / 2 / RATE > 2.3
    assert second.end / RATE == pytest.approx(4.3, abs=0.1)


@pytest.mark.parametrize("samples", [np.zeros(0, np.float32), np.zeros(100, np.float32)])
def test_in_audio_without_speech_a_word_may_be_anywhere(samples: np.ndarray):
    assert [(w.start, w.end) for w in place_words(samples, "yes no")] == [(0, len(samples))] * 2
    assert place_words(samples, "") == ()


def test_a_keyword_is_spoken_at_the_place_of_its_word_or_of_a_homophone():
    words = place_words(speech((10.0, True)), "i know that it was wrong and someone said forty")
    (know,) = (w for w in words if w.text == "know")
    middle = (know.start + know.end) / 2
    assert is_spoken_at(words, "no", middle, 160_000)
    assert is_spoken_at(words, "no", middle + 0.9 * RATE, 160_000)
    assert not is_spoken_at(words, "no", middle + 1.0 * RATE, 160_000)
    assert not any(
        is_spoken_at(words, k, (w.start + w.end) / 2, 160_000) for k in ("one", "four") for w in words
    )
