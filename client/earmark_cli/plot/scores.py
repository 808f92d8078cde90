"""What a model makes of a recording: every score and every detection, asked for as any client would."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from earmark_client.events import Detection, Scores, Started

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from earmark_client.audio import Chunk, KeywordSetting
    from earmark_client.sync_client import SyncClient

Floats = np.ndarray[Any, np.dtype[np.float32]]

# Rounded up to one step of the model, whatever that is.
_EVERY_STEP_S = 0.001


@dataclass(frozen=True, slots=True)
class Heard:
    """A stream's settings, its scores and its detections.

    `offsets_s` [frames]: where the audio ends that a score speaks of. `scores` [frames, keywords]: in
    the order of `started.keywords`.
    """

    started: Started
    offsets_s: Floats
    scores: Floats
    detections: tuple[Detection, ...]


def hear(
    client: SyncClient,
    audio: Iterable[Chunk],
    *,
    sample_rate_hz: int,
    model: str = "",
    keywords: Iterable[str | KeywordSetting] = (),
    on_progress: Callable[[float], object] = lambda _: None,
) -> Heard:
    """Stream a recording and collect what comes of it; `on_progress` is told how many seconds are heard."""
    started: Started | None = None
    offsets_s: list[float] = []
    rows: list[Floats] = []
    detections: list[Detection] = []
    columns: list[int] = []
    for event in client.stream(
        audio,
        sample_rate_hz=sample_rate_hz,
        model=model,
        keywords=keywords,
        score_interval_s=_EVERY_STEP_S,
    ):
        match event:
            case Started():
                started = event
            case Scores():
                if not columns:
                    labels = [one.label for one in event.scores]
                    columns = [labels.index(active.keyword) for active in _of(started).keywords]
                offsets_s.append(event.offset_s)
                rows.append(np.array([event.scores[i].score for i in columns], np.float32))
                on_progress(event.offset_s)
            case Detection():
                detections.append(event)
    scores = np.array(rows, np.float32).reshape(len(rows), len(_of(started).keywords))
    return Heard(_of(started), np.array(offsets_s, np.float32), scores, tuple(detections))


def blocks(samples: np.ndarray[Any, np.dtype[np.int16]], sample_rate_hz: int) -> Iterator[Chunk]:
    """Cut samples into blocks of a second."""
    for start in range(0, len(samples), sample_rate_hz):
        yield samples[start : start + sample_rate_hz]


def _of(started: Started | None) -> Started:
    assert started is not None, "a stream begins with Started"
    return started
