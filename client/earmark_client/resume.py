"""One unbroken stream out of calls that break: where the next call begins, and what of it is new.

Both clients are built on it; they do the waiting, the sending and the receiving.
"""

from __future__ import annotations

import random
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from earmark_client import messages
from earmark_client.errors import (
    ConnectionLostError,
    EarmarkError,
    IncompatibleServerError,
    ServerBusyError,
    ServerDrainingError,
    ServerFaultError,
    ServerUnreachableError,
)
from earmark_client.events import Detection, Ended, Progress, Reconnecting, Resumed, Scores, Started
from earmark_client.replay_buffer import Outbox
from earmark_client.tracing import StreamTrace

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from earmark_client.audio import Encoding, KeywordSetting
    from earmark_client.events import Event

RESUME_WITHIN_S = 60.0
"""How long a stream tries to go on after it broke, unless its caller says otherwise."""

KEPT_BEYOND_S = 30.0
"""Audio kept beyond what an outage of that length and one progress interval bring.

For what a replay needs (the model's receptive field and a second or two), and for live audio that
goes on while a connection is dead and not yet found to be (20 s).
"""

ANSWER_WITHIN_S = 10.0
"""A server that does not take up a broken stream within that is left for another try."""

# "Full jitter" (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/): any time
# from nothing to an exponentially growing one, so that the streams of a server that died do not all
# come at once to the next.
_FIRST_DELAY_S = 0.1
_LONGEST_DELAY_S = 5.0

# What a stream gets over once it has begun. Everything else is the caller's, or will not change.
_OF_THE_CONNECTION = (ConnectionLostError, ServerUnreachableError, ServerDrainingError, ServerFaultError)

_DEFAULT_PROGRESS_INTERVAL_S = 1.0


class UnbrokenStream:
    """What a stream's caller is to see, over however many calls it takes.

    Every detection, score frame and Progress of an unbroken stream exactly once, one Started, one
    Ended with the totals of the whole; Reconnecting and Resumed tell what happened in between. With
    `resume_within_s` 0 nothing is kept, and what breaks is broken.
    """

    def __init__(
        self,
        *,
        sample_rate_hz: int,
        encoding: Encoding,
        channels: int,
        model: str,
        keywords: Iterable[str | KeywordSetting],
        score_interval_s: float | None,
        progress_interval_s: float | None,
        resume: Progress | None,
        resume_within_s: float,
        request_id: str,
    ) -> None:
        self._config = messages.stream_config(
            sample_rate_hz=sample_rate_hz,
            encoding=encoding,
            channels=channels,
            model=model,
            keywords=keywords,
            score_interval_s=score_interval_s,
            progress_interval_s=progress_interval_s,
            request_id=request_id,
        )
        self._within_s = resume_within_s
        interval_s = _DEFAULT_PROGRESS_INTERVAL_S if progress_interval_s is None else progress_interval_s
        self.outbox = Outbox(
            sample_rate_hz=sample_rate_hz,
            encoding=encoding,
            channels=channels,
            start_s=0.0 if resume is None else resume.replay_s,
            keep_s=resume_within_s + interval_s + KEPT_BEYOND_S if resume_within_s > 0 else 0.0,
        )
        self.trace = StreamTrace()
        self.answered = False
        """Whether the server has begun the stream on this call."""
        self.moving = False
        """Whether this call is to be left for another server."""
        self.ended = False
        """Whether all is done."""
        self._newest = resume
        self._started: Started | None = None
        self._heard_since: set[str] = set()  # ids of the detections after the newest Progress
        self._detections = 0
        self._scored_s = self._received_s = -1.0
        self._broke_at_s: float | None = None  # until it has got further again
        self._attempts = 0

    @property
    def answer_within_s(self) -> float | None:
        """How long this call may take to answer; None: as long as it likes, for the first one."""
        return None if self._started is None else ANSWER_WITHIN_S

    def begin(self) -> messages.StreamRequest:
        """Begin a call: give its first message, after which `outbox` gives the others."""
        self.outbox.rewind()
        self.answered = self.moving = False
        request_id = "" if self._started is None else self._started.request_id
        return messages.first_request(self._config, self._newest, request_id)

    def take(self, response: messages.StreamResponse) -> Iterator[Event]:
        """Take what a call brought; give what of it the caller has not seen.

        Kinds of EarmarkError where the stream cannot go on.
        """
        match event := messages.event(response):
            case Started():
                yield from self._take_started(event)
            case Detection():
                if event.id not in self._heard_since:
                    self._heard_since.add(event.id)
                    self._detections += 1
                    self._got_further()
                    yield event
            case Scores():
                if event.offset_s > self._scored_s:
                    self._scored_s = event.offset_s
                    self._got_further()
                    yield event
            case Progress():
                yield from self._take_progress(event)
            case Ended():
                self.ended = True
                yield replace(event, detections=self._detections)

    def pause(self, error: EarmarkError | None) -> Reconnecting:
        """Say how long to wait before the next call, after one that broke (None: is to be left).

        Raises the error where the stream ends with it: it is the caller's or lasts, or there was
        none that the stream could begin on, or it has not got further for `resume_within_s`.
        """
        now_s = time.monotonic()
        if self._broke_at_s is None:
            self._broke_at_s, self._attempts = now_s, 0
        self._attempts += 1
        if error is None:
            error = ServerDrainingError("the server asks the stream to move")
            if self._attempts == 1:
                return Reconnecting(str(error), self._attempts, 0.0)
        self._raise_if_final(error)
        most_s = min(_LONGEST_DELAY_S, _FIRST_DELAY_S * 2 ** min(self._attempts - 1, 16))
        delay_s = (error.retry_after_s or 0.0) + random.uniform(0, most_s)
        if now_s + delay_s > self._broke_at_s + self._within_s:
            raise ConnectionLostError(
                f"the stream broke and could not be resumed within {self._within_s:g} s: {error}",
                status=error.status,
                reason=error.reason,
            ) from error
        return Reconnecting(str(error), self._attempts, delay_s)

    def _raise_if_final(self, error: EarmarkError) -> None:
        of_the_connection = isinstance(error, _OF_THE_CONNECTION)
        # A busy server refuses to take a stream up; one that it ends it does not want back.
        refused = isinstance(error, ServerBusyError) and not self.answered
        begun = self._started is not None and self._within_s > 0
        if error is self.outbox.failure or not begun or not (of_the_connection or refused):
            raise error

    def _take_started(self, event: Started) -> Iterator[Event]:
        self.answered = True
        if self._started is None:
            self._started = event
            yield event
            return
        if replace(event, request_id=self._started.request_id) != self._started:
            # With a resume token the server itself sees to that; without one it cannot.
            raise IncompatibleServerError(
                f"the stream broke, and the server has changed: it now listens with {event.model} "
                f"{event.model_version} or other settings; the stream began with {self._started.model} "
                f"{self._started.model_version}: begin a new one"
            )
        assert self._broke_at_s is not None
        yield Resumed(time.monotonic() - self._broke_at_s)

    def _take_progress(self, event: Progress) -> Iterator[Event]:
        if self._within_s > 0:
            self._newest = event
            self.outbox.forget(event.replay_s)
            self._heard_since.clear()
            if not self.outbox.has_room and self.outbox.all_sent and event.received_s >= self.outbox.end_s:
                raise IncompatibleServerError(
                    f"the server wants {self.outbox.kept_s:g} s of audio back to resume, more than is kept"
                )
            if event.draining:
                # It comes out of turn: an unbroken stream has none.
                self.moving = True
                return
        self._got_further()
        # The server of a call that broke may have received more.
        self._received_s = max(self._received_s, event.received_s)
        yield replace(event, received_s=self._received_s)

    def _got_further(self) -> None:
        self._broke_at_s = None
