"""One stream out of several, each with thresholds of its own: a moved threshold counts at once.

The thresholds of a stream of the service are fixed. So it is ended where one is moved, and another begun in
the same place, with the audio before that a score looks back on: its scores go on as if nothing had been.
What it finds there that was told already is not told again.
"""

from __future__ import annotations

import math
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from earmark_client.audio import KeywordSetting
from earmark_client.events import Detection, Ended, Reconnecting, Resumed, Scores, Started

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

    from earmark_client.client import Client
    from earmark_client.events import Event

_SCORE_INTERVAL_S = 0.04
_BYTES = 2  # of a sample

# Beyond what one score looks back on: what resampling and the search for a peak need.
_LOOK_BACK_S = 1.0


class Spliced:
    """The stream of one page, over all changes of its thresholds.

    `receive` gives 16-bit mono samples, or settings: {"keywords": thresholds}, or {} at the end.
    """

    def __init__(
        self,
        client: Client,
        receive: Callable[[], Awaitable[bytes | dict[str, Any]]],
        *,
        sample_rate_hz: int,
        model: str,
    ) -> None:
        self._client = client
        self._receive = receive
        self._rate_hz = sample_rate_hz
        self._model = model
        self._kept = bytearray()  # the newest audio
        self._keep_samples: int | None = None  # all of it, until the model has said what it needs
        self._between_scores = 1  # samples
        self._samples = 0  # received
        self._next: dict[str, float] | None = None
        self._scored_s = 0.0
        self._detections = 0
        self._heard_until_s: dict[str, float] = {}

    async def events(self, thresholds: dict[str, float]) -> AsyncGenerator[Event]:
        """Give Started for every segment, then what is heard, and Ended once; no Progress.

        `thresholds`: those that are not as calibrated.
        """
        settings: dict[str, float] | None = thresholds
        while settings is not None:
            told_until_s = self._samples / self._rate_hz
            first = self._samples - len(self._kept) // _BYTES
            # Where scores fall is counted from a segment's beginning.
            skipped = -first % self._between_scores
            del self._kept[: skipped * _BYTES]
            begin_s = (first + skipped) / self._rate_hz
            segment = self._client.stream(
                self._audio(),
                sample_rate_hz=self._rate_hz,
                model=self._model,
                keywords=await self._keywords(settings),
                score_interval_s=_SCORE_INTERVAL_S,
            )
            # Whoever leaves early, the call ends at once.
            async with aclosing(segment):
                async for event in segment:
                    for one in self._take(event, begin_s, told_until_s):
                        yield one
            settings = self._next
        yield Ended(self._samples / self._rate_hz, self._detections)

    async def _keywords(self, thresholds: dict[str, float]) -> list[KeywordSetting]:
        if not thresholds:
            return []
        known = [one.keyword for one in (await self._client.get_model(self._model)).keywords]
        # Others are refused by the service.
        return [KeywordSetting(one, thresholds.get(one)) for one in dict.fromkeys([*known, *thresholds])]

    async def _audio(self) -> AsyncIterator[bytes]:
        if self._kept:
            yield bytes(self._kept)
        while isinstance(message := await self._receive(), bytes):
            self._samples += len(message) // _BYTES
            self._kept += message
            if self._keep_samples is not None:
                del self._kept[: -self._keep_samples * _BYTES]
            yield message
        self._next = message.get("keywords")

    def _take(self, event: Event, begin_s: float, told_until_s: float) -> list[Event]:
        """Place an event of a segment in the whole; give what of it is new."""
        match event:
            case Started():
                keep_s = event.receptive_field_s + _LOOK_BACK_S
                self._keep_samples = math.ceil(keep_s * self._rate_hz)
                steps = math.ceil(_SCORE_INTERVAL_S / event.step_s - 1e-6)
                self._between_scores = round(steps * event.step_s * self._rate_hz)
                return [event]
            case Scores():
                event = replace(event, offset_s=begin_s + event.offset_s)
                # Half a step: seconds are not exact.
                if event.offset_s > self._scored_s + _SCORE_INTERVAL_S / 2:
                    self._scored_s = event.offset_s
                    return [event]
            case Detection():
                event = replace(event, start_s=begin_s + event.start_s, end_s=begin_s + event.end_s)
                until_s = self._heard_until_s.get(event.keyword, 0.0)
                # The segment before has told all that ended in it; a word may lie across.
                if event.end_s > told_until_s and event.start_s >= until_s:
                    self._heard_until_s[event.keyword] = event.end_s
                    self._detections += 1
                    return [event]
            case Reconnecting() | Resumed():
                return [event]
        return []
