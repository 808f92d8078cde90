"""A stream that survives its connection: where each call resumes, and which of its events are new.

Both clients use this state machine. They do the waiting, the sending and the receiving.
"""

from __future__ import annotations

import random
import time
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from earmark_client import messages
from earmark_client.audio_clip import RecentAudio
from earmark_client.errors import (
    ConnectionLostError,
    EarmarkError,
    IncompatibleServerError,
    ServerBusyError,
    ServerDrainingError,
    ServerFaultError,
    ServerUnreachableError,
)
from earmark_client.events import (
    AudioWarning,
    Detection,
    Ended,
    Progress,
    Reconnecting,
    Resumed,
    Scores,
    Started,
)
from earmark_client.replay_buffer import ReplayBuffer
from earmark_client.source_gate import SourceGate
from earmark_client.stream_options import DEFAULT_RESUME_WITHIN_S
from earmark_client.tracing import StreamTrace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from earmark_client.events import Event
    from earmark_client.stream_options import StreamOptions

REPLAY_MARGIN_S = 30.0
"""Audio kept in addition to `resume_within_s` and one progress interval.

It covers the audio before a detection that a replay needs (the model's receptive field, and one or two
seconds) and the live audio of the 20 s before a dead connection is detected.
"""

ANSWER_TIMEOUT_S = 10.0
"""How long a resumed call waits for the server's first event before the next attempt."""

_MIN_ANSWER_TIMEOUT_S = 2.0
"""How long the first call waits at least, however short `resume_within_s` is."""

STALL_TIMEOUT_S = 10.0
"""How long a call waits at least for a server that has stopped answering, within `resume_within_s`."""

END_TIMEOUT_S = 5.0
"""How long a complete stream waits for the end of its call before it cancels the call."""

_LONGEST_CHECK_INTERVAL_S = 1.0

_REPORT_MARGIN_S = 1.0
"""How much audio a server may have beyond a progress interval before its next Progress is overdue."""

_DECISION_MARGIN_S = 10.0
"""How far behind the end of the audio, beyond a progress interval, the newest Progress of a server that has
processed all of it may be: the part of REPLAY_MARGIN_S that is not for a dead connection."""

_OFFSET_TOLERANCE_S = 1.0
"""How far offsets of the server may lie beyond the audio that was sent, because both sides round them."""

_LONGEST_WORD_S = 5.0
"""How long before its end a detection may start, so that its audio is still kept."""

# "Full jitter" (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/): a random
# delay from zero to an exponentially growing limit, so that the streams of a failed server do not all
# arrive at the next server at once.
_FIRST_DELAY_S = 0.1
_LONGEST_DELAY_S = 5.0

# After these a stream resumes. All others are errors of the request, or permanent.
_RESUMABLE = (ConnectionLostError, ServerUnreachableError, ServerDrainingError, ServerFaultError)

_DEFAULT_PROGRESS_INTERVAL_S = 1.0

_OfModel = TypeVar("_OfModel", Detection, Scores)


class ResumableStream:
    """One stream over any number of calls, as its caller sees it.

    The caller sees every detection, every score, every Progress and every warning exactly once, one
    Started, and one Ended with the totals of the whole stream. Reconnecting and Resumed report what
    happens between calls.
    With `resume_within_s=0` no audio is kept, and the first broken call ends the stream.
    """

    def __init__(self, options: StreamOptions) -> None:
        self._config = messages.stream_config(options)
        self._within_s = options.resume_within_s
        interval_s = options.progress_interval_s
        if interval_s is None:
            interval_s = _DEFAULT_PROGRESS_INTERVAL_S
        self._interval_s = interval_s
        self._start_s = 0.0 if options.resume is None else options.resume.replay_s
        self.replay_buffer = ReplayBuffer(
            options.audio_format,
            start_s=self._start_s,
            keep_s=self._within_s + interval_s + REPLAY_MARGIN_S if self._within_s > 0 else 0.0,
            gate=SourceGate(options.audio_format) if options.gate else None,
        )
        self._keep_audio_s = options.keep_audio_s
        if options.keep_audio_s is not None:
            self.replay_buffer.recent = RecentAudio(options.audio_format, start_s=self._start_s)
        self.trace = StreamTrace()
        self.answered = False
        """Whether the server has started the stream on the current call."""
        self.server_draining = False
        """Whether the server of the current call is draining, so that the stream must move."""
        self.ended = False
        """Whether the stream is complete."""
        self._progress = options.resume
        self._started: Started | None = None
        self._ids_since_progress: set[str] = set()
        self._warnings: set[str] = set()
        self._detections = 0
        self._scored_s: dict[str, float] = {}  # by model
        self._received_s = self._processed_s = -1.0
        self._waited_s = 0.0  # for a response that is overdue
        self._broken_since_s: float | None = None  # None once the stream has advanced again
        self._attempts = 0

    @property
    def check_interval_s(self) -> float:
        """How often a call that waits for a response must call `may_wait`."""
        return min(_LONGEST_CHECK_INTERVAL_S, self._longest_wait_s / 8)

    def may_wait(self, elapsed_s: float) -> bool:
        """Return whether a call may wait on for a response; `elapsed_s`: since it was last asked.

        It may not if the server owes a response and the stream has not advanced for too long. The time
        in which the caller handles events, or keeps the event loop busy, does not count.
        """
        if not self._response_is_due:
            self._waited_s = 0.0
            return True
        self._waited_s += min(elapsed_s, 2 * self.check_interval_s)
        if self._waited_s < self._longest_wait_s:
            return True
        if self._broken_since_s is None and not self.ended:
            stalled_s = self._waited_s + (self._overdue_s if self.answered else 0.0)
            self._broken_since_s, self._attempts = time.monotonic() - stalled_s, 0
        return False

    @property
    def _response_is_due(self) -> bool:
        buffer = self.replay_buffer
        if not self.answered or self.ended or not buffer.all_sent or buffer.source_ended:
            return True
        if not buffer.has_capacity:
            return True  # nothing more can be sent before the next Progress
        reported_s = max(self._start_s, self._received_s)
        return buffer.end_s - reported_s > self._overdue_s

    @property
    def _overdue_s(self) -> float:
        """How much audio may come after one Progress before the next is overdue."""
        return self._interval_s + _REPORT_MARGIN_S

    @property
    def _longest_wait_s(self) -> float:
        """How long the current call waits while a response is due."""
        within_s = self._within_s or DEFAULT_RESUME_WITHIN_S
        if self.ended:
            return END_TIMEOUT_S
        if self.answered:
            # Half of the time, so that another server can be tried in the other half.
            stall_s = min(within_s, max(STALL_TIMEOUT_S, within_s / 2))
            # Live audio was sent for as long before the response is due.
            stall_s -= self._overdue_s
            return max(_MIN_ANSWER_TIMEOUT_S, stall_s, 2 * self._interval_s)
        if self._started is None:
            return max(_MIN_ANSWER_TIMEOUT_S, within_s)
        if self._broken_since_s is None:
            return ANSWER_TIMEOUT_S
        remaining_s = self._broken_since_s + self._within_s - time.monotonic()
        return min(ANSWER_TIMEOUT_S, max(0.0, remaining_s))

    def begin_call(self) -> messages.StreamRequest:
        """Begin a call: return its first message; `replay_buffer` returns the others."""
        self.replay_buffer.rewind()
        self.answered = self.server_draining = False
        self._waited_s = 0.0
        request_id = "" if self._started is None else self._started.request_id
        return messages.first_request(self._config, self._progress, request_id)

    def consume(self, response: messages.StreamResponse) -> Iterator[Event]:
        """Consume a response; yield the events that the caller has not seen.

        Raises an EarmarkError if the stream cannot continue.
        """
        event = messages.event(response)
        if event is None or self.ended:
            return
        if isinstance(event, Started) == self.answered:
            raise IncompatibleServerError(
                "the server violates the API: `started` must come once, and before all other events of a call"
            )
        match event:
            case Started():
                yield from self._consume_started(event)
            case Detection():
                if event.id not in self._ids_since_progress:
                    self._ids_since_progress.add(event.id)
                    self._detections += 1
                    self._advance(event.end_s)
                    yield self._with_audio(self._with_model(event))
            case Scores():
                if event.offset_s > self._scored_s.get(event.model, -1.0):
                    self._scored_s[event.model] = event.offset_s
                    self._advance(event.offset_s)
                    yield self._with_model(event)
            case Progress():
                yield from self._consume_progress(event)
            case AudioWarning():
                if event.reason not in self._warnings:
                    self._warnings.add(event.reason)
                    yield event
            case Ended():
                self.ended = True
                self._waited_s = 0.0
                if self.replay_buffer.source_error is None:
                    yield replace(event, detections=self._detections)

    def raise_source_error(self) -> None:
        """Raise the exception that ended the source, if any: after the events of the audio before it."""
        if self.replay_buffer.source_error is not None:
            raise self.replay_buffer.source_error

    def next_attempt(self, error: EarmarkError | None) -> Reconnecting:
        """Return the delay before the next call, after one that broke, or (None) whose server drains.

        Raises the error if the stream ends with it: the error is permanent or the request's own, the
        stream has never started, or it has not advanced for `resume_within_s`.
        """
        now_s = time.monotonic()
        if self._broken_since_s is None:
            self._broken_since_s, self._attempts = now_s, 0
        self._attempts += 1
        if error is None:
            error = ServerDrainingError("the server asked the stream to reconnect")
            if self._attempts == 1:
                return Reconnecting(str(error), self._attempts, 0.0)
        self._raise_if_final(error)
        longest_s = min(_LONGEST_DELAY_S, _FIRST_DELAY_S * 2 ** min(self._attempts - 1, 16))
        delay_s = (error.retry_after_s or 0.0) + random.uniform(0, longest_s)
        if now_s + delay_s > self._broken_since_s + self._within_s:
            raise ConnectionLostError(
                f"the stream broke and could not be resumed within {self._within_s:g} s: {error}",
                status=error.status,
                reason=error.reason,
            ) from error
        return Reconnecting(str(error), self._attempts, delay_s)

    def _raise_if_final(self, error: EarmarkError) -> None:
        # A busy server may accept the stream later, unless it ended the stream itself.
        rejected = isinstance(error, ServerBusyError) and not self.answered
        resumable = isinstance(error, _RESUMABLE) or rejected
        begun = self._started is not None and self._within_s > 0
        if not begun or not resumable:
            raise error

    def _consume_started(self, event: Started) -> Iterator[Event]:
        self.answered = True
        self._waited_s = 0.0
        messages.check_model_count(len(event.models), len(self._config.models))
        if self._started is None:
            self._started = event
            yield event
            return
        if replace(event, request_id=self._started.request_id) != self._started:
            # A server checks this itself when it gets a resume token; before the first Progress
            # there is none.
            raise IncompatibleServerError(
                f"the stream broke, and the server now runs {event.model} {event.model_version} or other "
                f"settings, but the stream began with {self._started.model} "
                f"{self._started.model_version}: start a new stream",
                reason="BAD_RESUME_TOKEN",
            )
        assert self._broken_since_s is not None, "a second call begins only after the first one broke"
        yield Resumed(time.monotonic() - self._broken_since_s)

    def _consume_progress(self, event: Progress) -> Iterator[Event]:
        sent_s = self.replay_buffer.sent_s
        if max(event.received_s, event.decided_s) > sent_s + _OFFSET_TOLERANCE_S:
            raise IncompatibleServerError(
                f"the server violates the API: it reports {event.received_s:g} s of audio as received and "
                f"{event.decided_s:g} s as decided, but only {sent_s:g} s were sent"
            )
        if self._within_s > 0:
            self._progress = event
            buffer = self.replay_buffer
            buffer.discard_before(event.replay_s)
            self._ids_since_progress.clear()
            # A silence is received at once, but the server has yet to process it, and then needs less.
            undecided_s = buffer.end_s - event.decided_s
            is_processed = buffer.all_sent and undecided_s <= self._interval_s + _DECISION_MARGIN_S
            if not buffer.has_capacity and is_processed:
                raise IncompatibleServerError(
                    f"the server needs {buffer.kept_s:g} s of audio again to resume, but the client keeps "
                    "less: start a new stream, with a longer resume_within_s"
                )
            if event.draining:
                # It arrives between two regular ones, and would not come on an uninterrupted stream.
                self.server_draining = True
                return
        if self.replay_buffer.recent is not None and self._keep_audio_s is not None:
            self.replay_buffer.recent.discard_before(event.decided_s - self._keep_audio_s - _LONGEST_WORD_S)
        self._advance(event.decided_s)
        # The server of a broken call may have received more than the current one.
        self._received_s = max(self._received_s, event.received_s)
        yield replace(event, received_s=self._received_s)

    def _with_model(self, event: _OfModel) -> _OfModel:
        """Return an event with the name of its model, which old servers do not send."""
        assert self._started is not None
        return event if event.model else replace(event, model=self._started.model)

    def _with_audio(self, detection: Detection) -> Detection:
        recent, keep_s = self.replay_buffer.recent, self._keep_audio_s
        if recent is None or keep_s is None:
            return detection
        return replace(detection, audio=recent.clip(detection.start_s - keep_s, detection.end_s + keep_s))

    def _advance(self, offset_s: float) -> None:
        """Note how far the server has processed the stream. Further than ever before ends an outage.

        A server that fails again and again at the same place must not count as working.
        """
        offset_s = min(offset_s, self.replay_buffer.sent_s)
        if offset_s > self._processed_s:
            self._processed_s = offset_s
            self._broken_since_s = None
            self._waited_s = 0.0
