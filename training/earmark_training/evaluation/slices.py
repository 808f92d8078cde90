"""Slices: classification accuracy on subsets of the keyword clips, and its spread over speakers.

The data does not state age, sex or origin, so the subsets are defined by what can be measured in a recording:
pitch, level, SNR and speaking rate. A third is a third of the clips.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from earmark_training.data.corpus import SAMPLE_RATE_HZ
from earmark_training.evaluation.intervals import wilson_interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from earmark_training.data.corpus import Corpus, Recording

PITCH_BORDER_HZ = 165.0
"""Between the usual ranges of men's voices and of women's and children's voices, which overlap."""

_PITCH_RANGE_HZ = (70.0, 400.0)
_VOICED = 0.6
_MIN_CLIPS = 10


@dataclass(frozen=True, slots=True)
class _ClipFeatures:
    """Measured properties of a clip; the word's length is in seconds."""

    pitch_hz: float | None
    level_db: float
    snr_db: float
    length_s: float


def measure_subsets(
    corpus: Corpus, clips: Sequence[Recording], correct: Sequence[bool]
) -> list[dict[str, Any]]:
    """Return the accuracy and its 95% interval for each subset of clips.

    `correct` says which clips were classified correctly.
    """
    features = [_clip_features(corpus.samples(c), c) for c in clips]
    pitches: dict[str, list[float]] = defaultdict(list)
    lengths: dict[str, list[float]] = defaultdict(list)
    for clip, f in zip(clips, features, strict=True):
        if f.pitch_hz:
            pitches[clip.speaker].append(f.pitch_hz)
        lengths[clip.text].append(f.length_s)
    voice_hz = {speaker: float(np.median(values)) for speaker, values in pitches.items()}
    slowness = [f.length_s / float(np.median(lengths[c.text])) for c, f in zip(clips, features, strict=True)]
    groups = {
        f"low-pitched voices (below {PITCH_BORDER_HZ:.0f} Hz)": [
            0 < voice_hz.get(c.speaker, 0) < PITCH_BORDER_HZ for c in clips
        ],
        "high-pitched voices": [voice_hz.get(c.speaker, 0) >= PITCH_BORDER_HZ for c in clips],
    }
    for low, high, values in (
        ("quietest third", "loudest third", [f.level_db for f in features]),
        ("noisiest third", "cleanest third", [f.snr_db for f in features]),
        ("fastest third", "slowest third", slowness),
    ):
        first, second = np.percentile(values, (100 / 3, 200 / 3)) if values else (0.0, 0.0)
        groups[low] = [v <= first for v in values]
        groups[high] = [v > second for v in values]
    rows = []
    for name, members in groups.items():
        member_correct = [c for c, m in zip(correct, members, strict=True) if m]
        if member_correct:
            low_end, high_end = wilson_interval(sum(member_correct), len(member_correct))
            rows.append(
                {
                    "subset": name,
                    "clips": len(member_correct),
                    "speakers": len({c.speaker for c, m in zip(clips, members, strict=True) if m}),
                    "accuracy": round(sum(member_correct) / len(member_correct), 4),
                    "interval": [round(low_end, 4), round(high_end, 4)],
                }
            )
    return rows


def measure_speakers(clips: Sequence[Recording], correct: Sequence[bool]) -> dict[str, Any]:
    """Return the spread of accuracy over the speakers with ten clips or more; empty without any."""
    by_speaker: dict[str, list[bool]] = defaultdict(list)
    for clip, clip_correct in zip(clips, correct, strict=True):
        by_speaker[clip.speaker].append(clip_correct)
    accuracies = [float(np.mean(c)) for c in by_speaker.values() if len(c) >= _MIN_CLIPS]
    if not accuracies:
        return {}
    worst, low, middle = np.percentile(accuracies, (0, 10, 50)).round(4).tolist()
    return {"speakers": len(accuracies), "worst": worst, "tenth_percentile": low, "median": middle}


def _clip_features(samples: NDArray[np.float32], clip: Recording) -> _ClipFeatures:
    start, end = clip.word or (0, len(samples))
    word = samples[start:end].astype(np.float64)
    hop = SAMPLE_RATE_HZ // 100
    frames = samples[: len(samples) // hop * hop].reshape(-1, hop).astype(np.float64)
    floor = np.percentile(np.square(frames).mean(axis=1), 10) if len(frames) else 0.0
    level_db = 10 * math.log10(np.square(word).mean() + 1e-10)
    snr_db = level_db - 10 * math.log10(floor + 1e-10)
    return _ClipFeatures(median_pitch_hz(word), level_db, snr_db, (end - start) / SAMPLE_RATE_HZ)


def median_pitch_hz(word: NDArray[np.float64]) -> float | None:
    """Return the median pitch of a word's voiced frames, by autocorrelation; None if no frame is voiced."""
    size, hop = SAMPLE_RATE_HZ // 25, SAMPLE_RATE_HZ // 100
    low, high = (round(SAMPLE_RATE_HZ / hz) for hz in _PITCH_RANGE_HZ[::-1])
    pitches = []
    for start in range(0, len(word) - size + 1, hop):
        frame = word[start : start + size]
        frame = frame - frame.mean()
        spectrum = np.abs(np.fft.rfft(frame, 2 * size)) ** 2
        # Normalise by the overlap, or short periods would be preferred.
        correlation = np.fft.irfft(spectrum)[:high] / np.arange(size, size - high, -1)
        if correlation[0] <= 0:
            continue
        correlation /= correlation[0]
        # Choose the shortest period whose correlation is nearly the highest: its multiples correlate too.
        candidates = np.flatnonzero(correlation[low:] >= 0.9 * correlation[low:].max()) + low
        if correlation[low:].max() >= _VOICED:
            first = candidates[0]
            while first + 1 < high and correlation[first + 1] > correlation[first]:
                first += 1
            pitches.append(SAMPLE_RATE_HZ / first)
    return float(np.median(pitches)) if pitches else None
