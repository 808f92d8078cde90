"""A stream whose thresholds can be changed while it runs.

The gRPC service fixes a stream's thresholds when the stream starts. To change them, this module ends the
stream and starts another one at the same offset: a new *segment*. The segment replays the audio that the
next score depends on, so the scores continue without a gap. What the previous segment could not decide yet,
because the word had just been spoken or had not ended, is decided by the new one.
"""

from __future__ import annotations

import math
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from earmark_client import (
    AudioWarning,
    Detection,
    Ended,
    KeywordSetting,
    Reconnecting,
    Resumed,
    Scores,
    Started,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence

    from earmark_client import Client, Event

_SCORE_INTERVAL_S = 0.04
_SAMPLE_BYTES = 2

# Replayed in addition to the receptive field: resampling and peak picking need it.
_REPLAY_MARGIN_S = 1.5

# A detection that ends so shortly before the end of a segment is decided without the audio that follows: more
# than the peak hold of the models and the delay of their scores.
_UNDECIDED_S = 0.6

# One that ends so shortly before may be of a word that has not ended.
_UNFINISHED_S = 0.15


@dataclass(frozen=True)
class ChangeThresholds:
    """A request to use these thresholds from here on. Keywords without one keep the calibrated threshold.

    The keys are keywords, or `MODEL/KEYWORD` for one of several models.
    """

    thresholds: Mapping[str, float]


@dataclass(frozen=True)
class EndOfAudio:
    """The end of the stream."""


class AdjustableStream:
    """One page's stream, from its start to its end, across all changes of the thresholds.

    `receive` returns the page's next message; bytes are 16-bit mono samples.
    """

    def __init__(
        self,
        client: Client,
        receive: Callable[[], Awaitable[bytes | ChangeThresholds | EndOfAudio]],
        *,
        sample_rate_hz: int,
        models: Sequence[str],
        with_scores: bool,
    ) -> None:
        self._client = client
        self._receive = receive
        self._rate_hz = sample_rate_hz
        self._models = models
        self._score_interval_s = _SCORE_INTERVAL_S if with_scores else None
        self._replay_audio = bytearray()  # the newest audio
        self._replay_samples: int | None = None  # None: keep everything, until the model's geometry is known
        self._score_interval_samples = 1
        self._received_samples = 0
        self._next_thresholds: Mapping[str, float] | None = None
        self._scored_until_s: dict[str, float] = {}  # by model
        self._detection_count = 0
        self._warned: set[str] = set()  # reasons of warnings
        self._detected_until_s: dict[str, float] = {}  # by model

    async def events(self, thresholds: Mapping[str, float]) -> AsyncGenerator[Event]:
        """Yield Started for every segment, its scores and detections, and one Ended at the end; no Progress.

        `thresholds`: those that differ from the calibrated ones.
        """
        current: Mapping[str, float] | None = thresholds
        while current is not None:
            self._next_thresholds = None
            replayed_until_s = self._received_samples / self._rate_hz
            first = self._received_samples - len(self._replay_audio) // _SAMPLE_BYTES
            # A segment's scores lie at multiples of the score interval, counted from its first sample.
            skipped = -first % self._score_interval_samples
            del self._replay_audio[: skipped * _SAMPLE_BYTES]
            begin_s = (first + skipped) / self._rate_hz
            segment = self._client.stream(
                self._segment_audio(),
                sample_rate_hz=self._rate_hz,
                models=self._models,
                keywords=await self._keyword_settings(current),
                score_interval_s=self._score_interval_s,
            )
            # If the page disconnects, the RPC ends at once.
            async with aclosing(segment):
                async for event in segment:
                    new_event = self._to_stream_event(event, begin_s, replayed_until_s)
                    if new_event is not None:
                        yield new_event
            current = self._next_thresholds
        yield Ended(self._received_samples / self._rate_hz, self._detection_count)

    async def _keyword_settings(self, thresholds: Mapping[str, float]) -> list[KeywordSetting]:
        if not thresholds:
            return []
        several = len(self._models) > 1
        settings, rest = [], dict(thresholds)
        for name in self._models:
            for one in (await self._client.get_model(name)).keywords:
                keys = (f"{one.model}/{one.keyword}", one.keyword)
                threshold = next((thresholds[key] for key in keys if key in thresholds), None)
                settings.append(KeywordSetting(one.keyword, threshold, model=one.model if several else ""))
                for key in keys:
                    rest.pop(key, None)
        # The service rejects unknown keywords.
        return settings + [KeywordSetting(keyword, threshold) for keyword, threshold in rest.items()]

    async def _segment_audio(self) -> AsyncIterator[bytes]:
        if self._replay_audio:
            yield bytes(self._replay_audio)
        while isinstance(message := await self._receive(), bytes):
            self._received_samples += len(message) // _SAMPLE_BYTES
            self._replay_audio += message
            if self._replay_samples is not None:
                del self._replay_audio[: -self._replay_samples * _SAMPLE_BYTES]
            yield message
        self._next_thresholds = message.thresholds if isinstance(message, ChangeThresholds) else None

    def _interval_samples(self, step_s: float) -> int:
        """Return the interval of a model's scores, which is a whole number of its steps."""
        return max(1, round(math.ceil(_SCORE_INTERVAL_S / step_s - 1e-6) * step_s * self._rate_hz))

    def _to_stream_event(self, event: Event, begin_s: float, replayed_until_s: float) -> Event | None:
        """Convert a segment's offsets to the stream's; return None for an event that was already sent."""
        match event:
            case Started():
                replay_s = event.receptive_field_s + _REPLAY_MARGIN_S
                self._replay_samples = math.ceil(replay_s * self._rate_hz)
                self._score_interval_samples = math.lcm(
                    *(self._interval_samples(model.step_s) for model in event.models)
                )
                if self._score_interval_samples > _REPLAY_MARGIN_S * self._rate_hz:
                    self._score_interval_samples = 1  # no position suits all models
                return event
            case Scores():
                event = replace(event, offset_s=begin_s + event.offset_s)
                # The margin of half an interval absorbs rounding errors.
                if event.offset_s > self._scored_until_s.get(event.model, 0.0) + _SCORE_INTERVAL_S / 2:
                    self._scored_until_s[event.model] = event.offset_s
                    return event
            case Detection():
                event = replace(event, start_s=begin_s + event.start_s, end_s=begin_s + event.end_s)
                if self._is_new(event, replayed_until_s):
                    self._detected_until_s[event.model] = event.end_s
                    self._detection_count += 1
                    return event
            case AudioWarning():
                if event.reason not in self._warned:
                    self._warned.add(event.reason)
                    return event
            case Reconnecting() | Resumed():
                return event
        return None

    def _is_new(self, detection: Detection, replayed_until_s: float) -> bool:
        """Return whether this segment, and no other one, decides a detection."""
        if self._next_thresholds is not None:
            received_s = self._received_samples / self._rate_hz
            if detection.end_s > received_s - _UNFINISHED_S:
                return False  # the next segment decides it
        if detection.end_s <= replayed_until_s - _UNDECIDED_S:
            return False  # the previous segment decided it
        # The previous segment may have decided it nevertheless, also as another keyword.
        middle_s = (detection.start_s + detection.end_s) / 2
        sent = middle_s < self._detected_until_s.get(detection.model, 0.0)
        return detection.start_s >= replayed_until_s or not sent
