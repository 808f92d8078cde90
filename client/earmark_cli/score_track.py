"""All scores and detections of a recording, collected from a stream."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from earmark_client.errors import IncompatibleServerError
from earmark_client.events import Detection, Scores, Started

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from earmark_client.audio import Chunk, KeywordSetting
    from earmark_client.sync_client import SyncClient

Floats = np.ndarray[Any, np.dtype[np.float32]]

# The server rounds it up to one step of the model.
_SCORE_INTERVAL_S = 0.001


@dataclass(frozen=True, slots=True)
class ScoreTrack:
    """The settings, the scores and the detections of a stream.

    `offsets_s` [frames]: end of the audio to which a score belongs. `scores` [frames, keywords]: in the
    order of `started.keywords`.
    """

    started: Started
    offsets_s: Floats
    scores: Floats
    detections: tuple[Detection, ...]


def collect_scores(
    client: SyncClient,
    audio: Iterable[Chunk],
    *,
    sample_rate_hz: int,
    model: str = "",
    keywords: Iterable[str | KeywordSetting] = (),
    on_progress: Callable[[float], object] = lambda _: None,
) -> ScoreTrack:
    """Stream a recording and collect its scores; call `on_progress` with the processed seconds."""
    events = client.stream(
        audio,
        sample_rate_hz=sample_rate_hz,
        model=model,
        keywords=keywords,
        score_interval_s=_SCORE_INTERVAL_S,
    )
    started = next(events)
    assert isinstance(started, Started), "the client raises an error unless a stream begins with Started"
    if not started.step_s > 0:
        raise IncompatibleServerError(f"the server violates the API: its step is {started.step_s:g} s")
    offsets_s: list[float] = []
    rows: list[Floats] = []
    detections: list[Detection] = []
    for event in events:
        match event:
            case Scores():
                by_label = {score.label: score.score for score in event.scores}
                try:
                    row = [by_label[active.keyword] for active in started.keywords]
                except KeyError as error:
                    raise IncompatibleServerError(
                        f"the server violates the API: scores lack the keyword {error}"
                    ) from None
                offsets_s.append(event.offset_s)
                rows.append(np.array(row, np.float32))
                on_progress(event.offset_s)
            case Detection():
                detections.append(event)
    scores = np.array(rows, np.float32).reshape(len(rows), len(started.keywords))
    return ScoreTrack(started, np.array(offsets_s, np.float32), scores, tuple(detections))


def with_final_scores(track: ScoreTrack) -> ScoreTrack:
    """Return the track with the confidence of each detection at its end as the only scores.

    These are what the thresholds of a verified model apply to, if all of its proposals were detected.
    """
    scores = np.zeros_like(track.scores)
    columns = {active.keyword: i for i, active in enumerate(track.started.keywords)}
    for detection in track.detections:
        frame = min(int(np.searchsorted(track.offsets_s, detection.end_s)), len(scores) - 1)
        scores[frame, columns[detection.keyword]] = detection.confidence
    return dataclasses.replace(track, scores=scores)
