"""Streams with known answers, made from clips, and the judgement of what a detector finds in them."""

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
_MOST_GAIN = 10 ** (30 / 20)
"""By which a voice is brought to the others' level: some clips are of next to nothing."""
TOLERANCE_SAMPLES = SAMPLE_RATE_HZ // 4
"""How far beside a word a detection's middle may lie to be one of it."""


@dataclass(frozen=True, slots=True)
class Spoken:
    """A word in a stream: what is said, and from where to where (samples)."""

    text: str
    start: int
    end: int
    located: bool = True
    """Whether start and end are the word's own, not its clip's."""


@dataclass(frozen=True, slots=True)
class Stream:
    """Audio, float32 [n] at 16 kHz, and every word in it."""

    samples: Float32Array
    words: tuple[Spoken, ...]

    @property
    def hours(self) -> float:
        """The stream's length in hours."""
        return len(self.samples) / SAMPLE_RATE_HZ / 3600


def make_streams(
    corpus: Corpus, clips: Sequence[Recording], *, snr_db: float | None, seed: int
) -> list[Stream]:
    """Put every clip into some stream, once, in random order, with pauses of 0.3 to 1.5 s between them.

    `snr_db`: recorded noise lies under the whole stream, and every word that much above it: as loud as the
    stream's median word, since a nominal level means nothing where voices differ by 25 dB. None: no noise is
    added, and every voice is as loud as it was recorded. The same seed gives the same words and pauses at
    every level.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(clips))
    parts = [order[i : i + _CLIPS_PER_STREAM] for i in range(0, len(order), _CLIPS_PER_STREAM)]
    return [_make_stream(corpus, [clips[j] for j in part], snr_db, rng) for part in parts]


def _make_stream(
    corpus: Corpus, clips: Sequence[Recording], snr_db: float | None, rng: np.random.Generator
) -> Stream:
    pieces: list[Float32Array] = []
    words, powers, position = [], [], 0
    for clip in clips:
        pause = int(rng.uniform(*_PAUSE_S) * SAMPLE_RATE_HZ)
        samples = corpus.samples(clip)
        start, end = clip.word or (0, clip.length)
        at = position + pause
        words.append(Spoken(clip.text, at + start, at + end, clip.word is not None))
        powers.append(float(np.square(samples[start:end]).mean()))
        pieces += [np.zeros(pause, np.float32), samples]
        position += pause + len(samples)
    median = np.median(powers)
    if snr_db is not None:
        gains = np.minimum(_MOST_GAIN, np.sqrt(median / np.maximum(powers, 1e-12)))
        pieces[1::2] = [clip * np.float32(gain) for clip, gain in zip(pieces[1::2], gains, strict=True)]
    return Stream(under_noise(corpus, np.concatenate(pieces), median, snr_db, rng), tuple(words))


def under_noise(
    corpus: Corpus, samples: Float32Array, power: np.floating, snr_db: float | None, rng: np.random.Generator
) -> Float32Array:
    """Add recorded noise that is `snr_db` weaker than `power`; None: add nothing.

    One of the corpus's validation noises, from anywhere on, drawn at every level alike.
    """
    noises = corpus.select("noise", "validation")
    noise = corpus.samples(noises[rng.integers(len(noises))])
    cut = int(rng.integers(len(noise)))
    if snr_db is None:
        return samples
    noise = np.resize(np.roll(noise, -cut), len(samples))
    gain = np.sqrt(power / 10 ** (snr_db / 10) / np.square(noise).mean())
    return np.clip(samples + noise * np.float32(gain), -1, 1)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a detector made of some streams, by keyword; see `judge`."""

    spoken: Counter[str]
    found: Counter[str]
    wrong: Counter[str]
    repeated: Counter[str]
    matches: list[tuple[int, Spoken, Detection]]
    """Every word found: in which of the streams, the word, and its detection."""

    @property
    def found_fraction(self) -> float:
        """Keywords found, of those spoken."""
        return self.found.total() / max(1, self.spoken.total())


def judge(
    streams: Sequence[Stream], detections: Sequence[Sequence[Detection]], keywords: Sequence[str]
) -> Verdict:
    """Count what was found, found again, and wrong.

    A spoken keyword is found by a detection of it whose middle lies within 0.25 s of the word. A second
    such detection is repeated; every other detection is wrong.
    """
    verdict = Verdict(Counter(), Counter(), Counter(), Counter(), [])
    for number, (stream, heard) in enumerate(zip(streams, detections, strict=True)):
        verdict.spoken.update(w.text for w in stream.words if w.text in keywords)
        found: set[Spoken] = set()
        for detection in heard:
            middle = (detection.start_sample + detection.end_sample) // 2
            here = [
                w
                for w in stream.words
                if w.start - TOLERANCE_SAMPLES <= middle < w.end + TOLERANCE_SAMPLES
                and w.text == detection.keyword
            ]
            new = [w for w in here if w not in found]
            if new:
                found.add(new[0])
                verdict.found[detection.keyword] += 1
                verdict.matches.append((number, new[0], detection))
            else:
                (verdict.repeated if here else verdict.wrong)[detection.keyword] += 1
    return verdict
