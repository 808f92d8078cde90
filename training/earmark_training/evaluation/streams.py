"""Synthetic streams: clips joined into continuous audio with known words, and detections matched to them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from earmark_training.data.corpus import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from collections.abc import Sequence

    from earmark_spotter import Detection
    from earmark_spotter.model import Float32Array

    from earmark_training.data.corpus import Corpus, Recording

_CLIPS_PER_STREAM = 40
_PAUSE_S = (0.3, 1.5)
_MAX_GAIN = 10 ** (30 / 20)
"""The largest gain that brings a voice to the level of the others: some clips are nearly silent."""
TOLERANCE_SAMPLES = SAMPLE_RATE_HZ // 4
"""The largest distance from a word to the middle of a detection of it."""


@dataclass(frozen=True, slots=True)
class SpokenWord:
    """A word in a stream, with its start and end in samples."""

    text: str
    start: int
    end: int
    located: bool = True
    """Whether start and end are those of the word, rather than of its clip."""


@dataclass(frozen=True, slots=True)
class SyntheticStream:
    """Audio, float32 [n] at 16 kHz, and every word in it."""

    samples: Float32Array
    words: tuple[SpokenWord, ...]

    @property
    def length(self) -> int:
        """The number of samples."""
        return len(self.samples)


def make_streams(
    corpus: Corpus,
    clips: Sequence[Recording],
    *,
    snr_db: float | None,
    seed: int,
    equal_levels: bool = False,
) -> list[SyntheticStream]:
    """Join the clips into streams, each clip once, in random order, with pauses of 0.3 to 1.5 s between them.

    With `snr_db`, recorded noise is added to the whole stream, and every word is brought to the level of the
    stream's median word, which is `snr_db` above the noise: voices differ by 25 dB, so an SNR would otherwise
    mean nothing. With None, no noise is added, and every voice is as loud as it was recorded, unless
    `equal_levels` is set. The same seed makes the same words and pauses at every SNR.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(clips))
    parts = [order[i : i + _CLIPS_PER_STREAM] for i in range(0, len(order), _CLIPS_PER_STREAM)]
    equal = equal_levels or snr_db is not None
    return [_make_stream(corpus, [clips[j] for j in part], snr_db, rng, equal_levels=equal) for part in parts]


def _make_stream(
    corpus: Corpus,
    clips: Sequence[Recording],
    snr_db: float | None,
    rng: np.random.Generator,
    *,
    equal_levels: bool,
) -> SyntheticStream:
    pieces: list[Float32Array] = []
    words, powers, position = [], [], 0
    for clip in clips:
        pause = int(rng.uniform(*_PAUSE_S) * SAMPLE_RATE_HZ)
        samples = corpus.samples(clip)
        start, end = clip.word or (0, clip.length)
        offset = position + pause
        words.append(SpokenWord(clip.text, offset + start, offset + end, clip.word is not None))
        powers.append(float(np.square(samples[start:end]).mean()))
        pieces += [np.zeros(pause, np.float32), samples]
        position += pause + len(samples)
    median = np.median(powers)
    if equal_levels:
        gains = np.minimum(_MAX_GAIN, np.sqrt(median / np.maximum(powers, 1e-12)))
        pieces[1::2] = [clip * np.float32(gain) for clip, gain in zip(pieces[1::2], gains, strict=True)]
    samples = add_recorded_noise(corpus, np.concatenate(pieces), median, snr_db, rng)
    return SyntheticStream(samples, tuple(words))


def add_recorded_noise(
    corpus: Corpus, samples: Float32Array, power: np.floating, snr_db: float | None, rng: np.random.Generator
) -> Float32Array:
    """Return the samples with recorded noise `snr_db` below `power`; with None, the samples as they are.

    The noise is one of the corpus's validation noises, from a random position on. The random numbers that are
    drawn do not depend on `snr_db`.
    """
    noises = corpus.clip_noises("validation")
    noise = corpus.samples(noises[rng.integers(len(noises))])
    cut = int(rng.integers(len(noise)))
    if snr_db is None:
        return samples
    noise = np.resize(np.roll(noise, -cut), len(samples))
    gain = np.sqrt(power / 10 ** (snr_db / 10) / np.square(noise).mean())
    return np.clip(samples + noise * np.float32(gain), -1, 1)


@dataclass(frozen=True, slots=True)
class MatchedDetections:
    """The result of `match_detections`: counts by keyword, and the matches."""

    spoken: Counter[str]
    detected: Counter[str]
    wrong: Counter[str]
    repeated: Counter[str]
    matches: list[tuple[int, SpokenWord, Detection]]
    """Every detected word: the index of its stream, the word, and its detection."""

    @property
    def recall(self) -> float:
        """The share of spoken keywords that were detected."""
        return self.detected.total() / max(1, self.spoken.total())


def match_detections(
    streams: Sequence[SyntheticStream],
    detections: Sequence[Sequence[Detection]],
    keywords: Sequence[str],
) -> MatchedDetections:
    """Match the detections of each stream to its words, and count them.

    A spoken keyword is detected if the middle of a detection of it lies within 0.25 s of the word. A second
    such detection is repeated; every other detection is wrong.
    """
    result = MatchedDetections(Counter(), Counter(), Counter(), Counter(), [])
    for number, (stream, stream_detections) in enumerate(zip(streams, detections, strict=True)):
        result.spoken.update(w.text for w in stream.words if w.text in keywords)
        matched: set[SpokenWord] = set()
        for detection in stream_detections:
            middle = (detection.start_sample + detection.end_sample) // 2
            candidates = [
                w
                for w in stream.words
                if w.start - TOLERANCE_SAMPLES <= middle < w.end + TOLERANCE_SAMPLES
                and w.text == detection.keyword
            ]
            new = [w for w in candidates if w not in matched]
            if new:
                matched.add(new[0])
                result.detected[detection.keyword] += 1
                result.matches.append((number, new[0], detection))
            else:
                (result.repeated if candidates else result.wrong)[detection.keyword] += 1
    return result
