"""Whom a model hears worse: accuracy in parts of the keyword clips that can be told apart by measuring.

The data names no one's age, sex or origin, so these are properties of the recordings: how high the voice
is, how loud, how noisy, how fast. Thirds are thirds of the clips.
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np

from earmark_training.data.corpus import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from earmark_training.data.corpus import Corpus, Recording

PITCH_BORDER_HZ = 165.0
"""Between the usual ranges of men's and of women's and children's voices; many lie beyond it."""

_PITCH_RANGE_HZ = (70.0, 400.0)
_VOICED = 0.6
_MANY_CLIPS = 10


def measure_subsets(
    corpus: Corpus, clips: Sequence[Recording], right: Sequence[bool]
) -> list[dict[str, Any]]:
    """Return the accuracy with its 95% interval for each subset of clips; `right` says which were."""
    features = [_features(corpus.samples(c), c) for c in clips]
    pitches: dict[str, list[float]] = defaultdict(list)
    lengths: dict[str, list[float]] = defaultdict(list)
    for clip, f in zip(clips, features, strict=True):
        if f["pitch"]:
            pitches[clip.speaker].append(f["pitch"])
        lengths[clip.text].append(f["length"])
    voice = {speaker: float(np.median(found)) for speaker, found in pitches.items()}
    speed = [f["length"] / float(np.median(lengths[c.text])) for c, f in zip(clips, features, strict=True)]
    groups = {
        f"low-pitched voices (under {PITCH_BORDER_HZ:.0f} Hz)": [
            0 < voice.get(c.speaker, 0) < PITCH_BORDER_HZ for c in clips
        ],
        "high-pitched voices": [voice.get(c.speaker, 0) >= PITCH_BORDER_HZ for c in clips],
    }
    for low, high, values in (
        ("quietest third", "loudest third", [f["level_db"] for f in features]),
        ("noisiest third", "cleanest third", [f["snr_db"] for f in features]),
        ("third said fastest", "third said slowest", speed),
    ):
        first, second = np.percentile(values, (100 / 3, 200 / 3)) if values else (0.0, 0.0)
        groups[low] = [v <= first for v in values]
        groups[high] = [v > second for v in values]
    rows = []
    for name, members in groups.items():
        hits = [r for r, m in zip(right, members, strict=True) if m]
        if hits:
            low_end, high_end = wilson(sum(hits), len(hits))
            rows.append(
                {
                    "subset": name,
                    "clips": len(hits),
                    "speakers": len({c.speaker for c, m in zip(clips, members, strict=True) if m}),
                    "accuracy": round(sum(hits) / len(hits), 4),
                    "interval": [round(low_end, 4), round(high_end, 4)],
                }
            )
    return rows


def measure_speakers(clips: Sequence[Recording], right: Sequence[bool]) -> dict[str, Any]:
    """Return how accuracy is spread over the speakers with ten clips or more."""
    by_speaker: dict[str, list[bool]] = defaultdict(list)
    for clip, hit in zip(clips, right, strict=True):
        by_speaker[clip.speaker].append(hit)
    shares = [float(np.mean(hits)) for hits in by_speaker.values() if len(hits) >= _MANY_CLIPS]
    if not shares:
        return {}
    worst, low, middle = np.percentile(shares, (0, 10, 50)).round(4).tolist()
    return {"speakers": len(shares), "worst": worst, "tenth_percentile": low, "median": middle}


def wilson(hits: int, count: int) -> tuple[float, float]:
    """Return the 95% interval of a share (Wilson 1927)."""
    z, p = 1.96, hits / count
    middle = p + z * z / (2 * count)
    half = z * math.sqrt(p * (1 - p) / count + z * z / (4 * count * count))
    return (middle - half) / (1 + z * z / count), (middle + half) / (1 + z * z / count)


def _features(samples: NDArray[np.float32], clip: Recording) -> dict[str, float]:
    start, end = clip.word or (0, len(samples))
    word = samples[start:end].astype(np.float64)
    hop = SAMPLE_RATE_HZ // 100
    frames = samples[: len(samples) // hop * hop].reshape(-1, hop).astype(np.float64)
    floor = np.percentile(np.square(frames).mean(axis=1), 10) if len(frames) else 0.0
    level_db = 10 * math.log10(np.square(word).mean() + 1e-10)
    return {
        "pitch": pitch_hz(word) or 0.0,
        "level_db": level_db,
        "snr_db": level_db - 10 * math.log10(floor + 1e-10),
        "length": (end - start) / SAMPLE_RATE_HZ,
    }


def pitch_hz(word: NDArray[np.float64]) -> float | None:
    """Return the median pitch of a word's voiced frames, by autocorrelation; None where none is voiced."""
    size, hop = SAMPLE_RATE_HZ // 25, SAMPLE_RATE_HZ // 100
    low, high = (round(SAMPLE_RATE_HZ / hz) for hz in _PITCH_RANGE_HZ[::-1])
    found = []
    for start in range(0, len(word) - size + 1, hop):
        frame = word[start : start + size]
        frame = frame - frame.mean()
        spectrum = np.abs(np.fft.rfft(frame, 2 * size)) ** 2
        # Divided by the overlap, or long periods would lose against short ones.
        correlation = np.fft.irfft(spectrum)[:high] / np.arange(size, size - high, -1)
        if correlation[0] <= 0:
            continue
        correlation /= correlation[0]
        # The shortest period that is nearly as good as the best: its multiples are good as well.
        candidates = np.flatnonzero(correlation[low:] >= 0.9 * correlation[low:].max()) + low
        if correlation[low:].max() >= _VOICED:
            first = candidates[0]
            while first + 1 < high and correlation[first + 1] > correlation[first]:
                first += 1
            found.append(SAMPLE_RATE_HZ / first)
    return float(np.median(found)) if found else None
