from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from earmark_spotter import Detection
from earmark_training.data.corpus import Corpus
from earmark_training.evaluation.streams import (
    SpokenWord,
    SyntheticStream,
    make_streams,
    match_detections,
)

if TYPE_CHECKING:
    from collections.abc import Sequence


def test_streams_contain_every_clip_once_at_the_stated_snr(corpus: Corpus, monkeypatch: pytest.MonkeyPatch):
    clips, samples = corpus.select("clip", "validation"), Corpus.samples
    monkeypatch.setattr(Corpus, "samples", lambda self, c: samples(self, c) * (0.1 if c == clips[0] else 1))
    (clean,) = make_streams(corpus, clips, snr_db=None, seed=5)
    (noisy,) = make_streams(corpus, clips, snr_db=10, seed=5)
    assert sorted(w.text for w in clean.words) == sorted(c.text for c in clips)
    assert clean.words == noisy.words
    # A pause contains only the noise, and each word, also a quiet one, is 10 dB above it.
    noise = np.square(noisy.samples[clean.samples == 0]).mean()
    for word in noisy.words:
        power = np.square(noisy.samples[word.start : word.end]).mean()
        assert 10 * np.log10(power / noise - 1) == pytest.approx(10, abs=1.5)


def test_detections_are_counted_as_detected_repeated_and_wrong():
    def detection(keyword: str, start: int) -> Detection:
        return Detection(keyword, 0.9, start, start + 6_400, f"{keyword}-{start}")

    words = (SpokenWord("yes", 16_000, 22_400), SpokenWord("no", 40_000, 46_400))
    stream = SyntheticStream(np.zeros(80_000, np.float32), words)
    detections: Sequence[Detection] = [
        detection("yes", 15_000),
        detection("yes", 17_000),
        detection("yes", 40_000),
        detection("no", 70_000),
    ]
    matched = match_detections([stream], [detections], ("yes", "no"))
    assert (matched.spoken.total(), matched.detected.total()) == (2, 1)
    assert (matched.repeated["yes"], matched.wrong["yes"], matched.wrong["no"]) == (1, 1, 1)
    assert matched.recall == 0.5
