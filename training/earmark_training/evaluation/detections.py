"""Detections in the scores of a recording, and the false alarms among them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from earmark_spotter import Detector, KeywordSetting, resolve_settings

from earmark_training.data.transcripts import is_spoken_at
from earmark_training.data.vocabulary import keywords_in

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from earmark_spotter import Detection
    from earmark_spotter.metadata import ModelMetadata
    from earmark_spotter.model import Float32Array

    from earmark_training.evaluation.peaks import ScoredUtterance

_CHUNK_FRAMES = 50


def detect(
    metadata: ModelMetadata, scores: Float32Array, thresholds: dict[str, float] | None = None
) -> list[Detection]:
    """Return the detections in scores [frames, classes], at the model's thresholds or the given ones."""
    settings = [KeywordSetting(k, t) for k, t in (thresholds or {}).items()]
    detector = Detector(metadata, resolve_settings(metadata, settings))
    # In chunks, since the detector is fast on a chunk in which no score reaches its threshold.
    chunks = (scores[i : i + _CHUNK_FRAMES] for i in range(0, len(scores), _CHUNK_FRAMES))
    return [d for chunk in chunks for d in detector.push(chunk)] + detector.flush()


def detect_in_steps(metadata: ModelMetadata, scores: Float32Array) -> Iterator[tuple[Detection, int]]:
    """Yield the detections in scores [frames, classes], each with the samples processed when it was decided.

    The scores are processed in inference steps, as a server does, at the model's thresholds.
    """
    detector = Detector(metadata, resolve_settings(metadata))
    frames = metadata.frames_per_step
    for start in range(0, len(scores), frames):
        for detection in detector.push(scores[start : start + frames]):
            yield detection, (start + frames) * metadata.frame_samples
    for detection in detector.flush():
        yield detection, len(scores) * metadata.frame_samples


def false_alarms(
    metadata: ModelMetadata,
    utterances: Sequence[ScoredUtterance],
    thresholds: dict[str, float] | None = None,
    *,
    anywhere: bool = False,
) -> Counter[str]:
    """Count, by keyword, the detections that the transcript does not explain.

    A detection is explained by the keyword or a homophone of it at its place in the transcript; with
    `anywhere`, at any place.
    """
    counts: Counter[str] = Counter()
    for utterance in utterances:
        spoken = keywords_in(utterance.text, metadata.keyword_names)
        for d in detect(metadata, utterance.scores, thresholds):
            middle = (d.start_sample + d.end_sample) / 2
            if d.keyword not in spoken or not (
                anywhere or is_spoken_at(utterance.words, d.keyword, middle, utterance.length)
            ):
                counts[d.keyword] += 1
    return counts
