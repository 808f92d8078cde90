"""Dynamic batching: one thread listens for all streams, joined to the event loop by bounded queues.

A stream is due when listening to what it has sent can bring an event (see `Work.due_ns`); until
then its audio waits, at no loss, and is listened to in one go. The engine takes up to 64 streams
that are due, runs the model on those with equally many steps in one call, and hands the results
back with one call into the loop. A stream that has more goes to the end of the queue: nobody
starves, however fast another one sends.

The loop hands the engine all that became due while it dealt with what had come, and then, where
many live streams are open, sleeps for a moment on purpose, as network cards do that gather packets
before they interrupt: what comes meanwhile is read together, and the engine has the interpreter to
itself. Reading then costs less, and batches are larger.

Who owns what: audio goes to the engine's thread through each call's inbox and the queue of
streams that are due, commands through another queue, and results come back through
`call_soon_threadsafe`. Every other attribute is written by one side only (the comments say
which; the other side may read an older value, which only makes it more careful). So there are
no locks. A stream may be in the queue twice: the second time there is nothing to do.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import queue
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Literal, Self
from weakref import WeakKeyDictionary

import numpy as np

from earmark_server.inference.load import Load
from earmark_server.inference.session import End, Event, Failed
from earmark_server.inference.state_pool import StateBank
from earmark_server.logs import log
from earmark_server.telemetry.histogram import Distribution

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from earmark_spotter import SpotterModel
    from earmark_spotter.model import Float32Array

    from earmark_server.inference.session import Input, Work

_LOGGER = logging.getLogger(__name__)

MAX_BATCH = 64
"""Streams in one run of a model; more gain nothing."""

MAX_UNREAD_EVENTS = 256
"""Events that may wait for a stream's reader; beyond it the stream is not listened to."""

# Audio of one stream in a round: a second for one alone, so that a recording is fast, and down to
# 200 ms when many are ready, so that nobody waits long.
_ROUND_S = 1.0
_LEAST_S = 0.2

# So long the loop deals with what comes before it hands over what is due of it, if it may sleep then.
_GATHER_S = 0.001
# How long the loop sleeps, for each open stream but one, and at most.
_NAP_PER_STREAM_S = 0.0004
_LONGEST_NAP_S = 0.02
# A stream that sends so much more than is spoken meanwhile, within a second, is no live one: nobody
# sleeps while there is one.
_LIVE_LEAD_NS = 300_000_000
_PACE_WINDOW_S = 1.0

# Messages of one stream that wait to be looked at together, however short they are.
_MAX_INBOX = 64


class _Command(enum.Enum):
    OPEN = enum.auto()
    CLOSE = enum.auto()
    TELL_ROOM = enum.auto()
    UNPARK = enum.auto()
    MILESTONE = enum.auto()


class EngineStream:
    """One call's place in the engine, as the event loop sees it; closed at the end of its `with` block."""

    def __init__(self, engine: Engine, work: Work, max_pending_ns: int) -> None:
        self.work = work
        self.sent_ns = 0  # written by the loop
        self.has_ended = False  # written by the loop
        self.taken_events = 0  # written by the loop
        self.made_events = 0  # written by the engine
        self.queued = False  # this and the next: set by whoever puts it into the queue; cleared by the engine
        self.queued_s = 0.0
        self.is_live = True  # this and the next: written by the engine
        self._pace_since = (time.monotonic(), 0)  # when, and what had been sent by then
        self.slot = -1  # the rest of this paragraph: the engine's alone
        self.parked = False
        self.wants_room = False
        self._engine = engine
        self._max_pending_ns = max_pending_ns
        self._events: deque[Event] = deque()
        self._handed_out = 0
        self._is_parked = False
        self._wakeup: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def is_full(self) -> bool:
        """Whether so much audio is pending that no more should be read."""
        return self.sent_ns - self.work.heard_ns > self._max_pending_ns

    @property
    def has_room(self) -> bool:
        """Whether reading should go on: with some distance to `is_full`, so as not to flutter."""
        return self.sent_ns - self.work.heard_ns <= self._max_pending_ns // 2

    @property
    def is_due(self) -> bool:
        """Whether what was sent should be listened to now."""
        return (
            self.sent_ns >= self.work.due_ns
            or self.has_ended
            or self.wants_room
            or len(self.work.inbox) >= _MAX_INBOX
        )

    def send(self, item: Input, duration_ns: int = 0) -> None:
        """Hand over what came next, and how much audio it is."""
        self.work.inbox.append(item)
        self.sent_ns += duration_ns
        if not self.queued and self.is_due:
            self._engine.enqueue(self)

    def end(self) -> None:
        """Hand over that no more audio will come."""
        self.has_ended = True
        self.send(End.OF_AUDIO)

    def take_pace(self, now_s: float) -> None:
        """Find out whether it sends as fast as somebody speaks; a lead from before does not count."""
        since_s, sent_ns = self._pace_since
        lead_ns = self.sent_ns - sent_ns - (now_s - since_s) * 1e9
        self.is_live = not self.has_ended and lead_ns < _LIVE_LEAD_NS
        if now_s - since_s > _PACE_WINDOW_S:
            self._pace_since = (now_s, self.sent_ns)

    async def room(self) -> None:
        """Wait until there is room for more audio."""
        self._room = asyncio.get_running_loop().create_future()
        self._engine.command(self, _Command.TELL_ROOM)
        try:
            await self._room
        finally:
            self._room = None

    async def events(self) -> Sequence[Event]:
        """Wait for the next events. Asking for more says that those before were dealt with."""
        self.taken_events += self._handed_out
        self._handed_out = 0
        while not self._events:
            self._unpark()
            self._wakeup = asyncio.get_running_loop().create_future()
            await self._wakeup
        events = list(self._events)
        self._events.clear()
        self._handed_out = sum(not isinstance(event, Failed) for event in events)
        return events

    def fail(self, error: Exception) -> None:
        """Let the events end with an error, after those that are there already."""
        self._events.append(Failed(error))
        self._wake()

    def ask_milestone(self) -> None:
        """Have the client told where the stream stands, because the server is draining."""
        self._engine.command(self, _Command.MILESTONE)

    def close(self) -> None:
        """Give the slot back, whatever is still pending."""
        self._engine.close_stream(self)

    def deliver(self, events: Iterable[Event], parked: bool) -> None:
        """Take what the engine has to say."""
        self._events.extend(events)
        self._is_parked = self._is_parked or parked
        if self._events:
            self._wake()
        elif not self._handed_out:
            self._unpark()
        if self._room is not None and not self._room.done() and self.has_room:
            self._room.set_result(None)

    def _unpark(self) -> None:
        if self._is_parked:
            self._is_parked = False
            self._engine.command(self, _Command.UNPARK)

    def _wake(self) -> None:
        if self._wakeup is not None and not self._wakeup.done():
            self._wakeup.set_result(None)


class Engine:
    """Listens for any number of streams, with any models, on a thread of its own."""

    def __init__(self) -> None:
        self.load = Load()
        self.used_slots = 0  # written by the engine: a moment behind what was opened and closed
        # What the thread counts; the others may read values that are a moment old.
        self.heard_s = 0.0
        """Audio listened to, of all streams."""
        self.batches = Distribution((1, 2, 4, 8, 16, 32, 64))
        """Streams in a run of a model."""
        self.steps_s = Distribution(
            (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 1)
        )
        """Time of a run of a model."""
        self.waits_s = Distribution((0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5))
        """The longest wait of a stream, in each round."""
        # The engine's alone; a bank goes with its model, when nobody has that any more.
        self._banks: WeakKeyDictionary[SpotterModel, StateBank] = WeakKeyDictionary()
        self._due: deque[EngineStream] = deque()  # filled by both, emptied by the engine
        self._asleep = False  # set by the engine, cleared by whoever wakes it
        self._handing_over = False  # this and the next: the loop's alone
        self._all_live = True
        self._commands: queue.SimpleQueue[tuple[EngineStream, _Command] | Literal["wake", "end"]] = (
            queue.SimpleQueue()
        )
        self._streams: set[EngineStream] = set()  # the loop's
        self.progress = 0
        """Grows with all that the thread does; this and the next are written by the engine."""
        self.is_busy = False
        """Whether the thread has something to do, rather than waiting for it."""
        self.thread = threading.Thread(target=self._run, name="earmark-engine", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None

    # On the loop.

    def start(self) -> None:
        """Start the thread, which reports to the running event loop."""
        self._loop = asyncio.get_running_loop()
        self.thread.start()

    async def stop(self) -> None:
        """End the thread after the run of the model that it is in."""
        if self.thread.is_alive():
            self._commands.put("end")
            # A wedged thread cannot be ended, only left behind.
            await asyncio.to_thread(self.thread.join, 5)

    def open_stream(self, work: Work, max_pending_ns: int) -> EngineStream:
        """Give a call a slot."""
        stream = EngineStream(self, work, max_pending_ns)
        self._streams.add(stream)
        self.command(stream, _Command.OPEN)
        return stream

    def close_stream(self, stream: EngineStream) -> None:
        """Take a call's slot back; nothing of it is delivered any more."""
        if stream in self._streams:
            self._streams.remove(stream)
            self.command(stream, _Command.CLOSE)

    def command(self, stream: EngineStream, command: _Command) -> None:
        """Have the engine's thread do something; it never blocks."""
        self._commands.put((stream, command))

    def enqueue(self, stream: EngineStream) -> None:
        """Have a stream listened to that is due."""
        self._put(stream)
        self._all_live = self._all_live and stream.is_live
        if self._handing_over:
            return
        assert self._loop is not None
        self._handing_over = True
        nap_s = min(_LONGEST_NAP_S, max(0, len(self._streams) - 1) * _NAP_PER_STREAM_S)
        if nap_s:
            self._loop.call_later(_GATHER_S, self._hand_over, nap_s, time.monotonic(), time.thread_time())
        else:
            self._loop.call_soon(self._hand_over)

    def _put(self, stream: EngineStream) -> None:
        stream.queued, stream.queued_s = True, time.monotonic()
        self._due.append(stream)

    def _hand_over(self, nap_s: float = 0, since_s: float = 0, cpu_since_s: float = 0) -> None:
        """Wake the engine, and sleep if the loop had little to do since then."""
        self._handing_over = False
        if self._asleep:
            self._asleep = False
            self._commands.put("wake")
        if nap_s and self._all_live:
            is_quiet = time.thread_time() - cpu_since_s < (time.monotonic() - since_s) / 2
            if is_quiet:
                time.sleep(nap_s)  # on purpose: see the module's docstring
        self._all_live = True

    @property
    def has_due(self) -> bool:
        """Whether streams wait to be listened to."""
        return bool(self._due)

    @property
    def queue_length(self) -> int:
        """How many streams wait to be listened to."""
        return len(self._due)

    @property
    def lag_s(self) -> float:
        """How long the stream that waits longest has waited; 0 if none does."""
        try:
            return time.monotonic() - self._due[0].queued_s
        except IndexError:
            return 0.0

    def _deliver(self, results: list[tuple[EngineStream, list[Event], bool]]) -> None:
        for stream, events, parked in results:
            if stream in self._streams:
                stream.deliver(events, parked)

    # On the engine's thread.

    def _run(self) -> None:
        try:
            while self._obey():
                if self._due:
                    began_s = time.monotonic()
                    waited_s = began_s - self._due[0].queued_s
                    self.waits_s.add(waited_s)
                    live_share = self._round(began_s)
                    self.load.add_round(began_s, time.monotonic(), waited_s, live_share)
        except BaseException as error:  # nobody is above it to see it, but the watchdog sees that it is gone
            log(_LOGGER, logging.CRITICAL, "engine died", exc_info=error)

    def _call_loop(self, function: Callable[..., None], *arguments: object) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            # The loop was closed without stopping the engine: nobody listens any more.
            self._commands.put("end")

    def _obey(self) -> bool:
        """Carry out what was commanded, waiting if there is nothing else to do; False at the end."""
        # In this order: what becomes due from here on wakes.
        self._asleep = True
        for _ in range(max(self._commands.qsize(), not self._due)):
            self.is_busy = False
            command = self._commands.get()
            self.is_busy = True
            self.progress += 1
            if command == "end":
                return False
            if command == "wake":
                continue
            stream, what = command
            try:
                self._carry_out(stream, what)
            except Exception as error:
                self._report([(stream, [Failed(error)])])
        self._asleep = False
        return True

    def _carry_out(self, stream: EngineStream, command: _Command) -> None:
        match command:
            case _Command.OPEN:
                stream.slot = self._bank(stream).allocate()
                self.used_slots += 1
                self._enqueue_if_due(stream)  # it may have been due before it had a slot
            case _Command.CLOSE:
                if stream.slot >= 0:
                    self._bank(stream).release(stream.slot)
                    stream.slot = -1
                    self.used_slots -= 1
            case _Command.TELL_ROOM:
                stream.wants_room = True
                self._report([(stream, [])])
                self._enqueue_if_due(stream)
            case _Command.UNPARK:
                stream.parked = False
                self._enqueue_if_due(stream)
            case _Command.MILESTONE:
                milestone = stream.work.milestone()
                if milestone is not None and stream.slot >= 0:
                    self._report([(stream, [milestone])])

    def _bank(self, stream: EngineStream) -> StateBank:
        model = stream.work.model
        bank = self._banks.get(model)
        if bank is None:
            bank = self._banks[model] = StateBank(model)
        return bank

    def _enqueue_if_due(self, stream: EngineStream) -> None:
        may_run = stream.slot >= 0 and not (stream.queued or stream.parked)
        if may_run and stream.is_due and stream.work.has_more:
            self._put(stream)

    def _round(self, now_s: float) -> float:
        """Run the models once for the streams at the head of the queue; return their live share."""
        limit_s = max(_LEAST_S, _ROUND_S / len(self._due))
        groups: dict[tuple[int, int], list[EngineStream]] = {}
        count = min(len(self._due), MAX_BATCH)
        live_count = 0
        for _ in range(count):
            self.progress += 1
            stream = self._due.popleft()
            stream.queued = False
            stream.take_pace(now_s)
            live_count += stream.is_live
            if stream.slot < 0 or stream.parked:
                continue
            try:
                steps = stream.work.prepare(limit_s)
            except Exception as error:
                self._report([(stream, [Failed(error)])])
                continue
            if steps:
                groups.setdefault((id(stream.work.model), steps), []).append(stream)
        for (_, steps), streams in groups.items():
            self.progress += 1
            self._report(self._listen(streams, steps))
            for stream in streams:
                self._enqueue_if_due(stream)
        return live_count / count

    def _listen(self, streams: list[EngineStream], steps: int) -> list[tuple[EngineStream, list[Event]]]:
        """Run a model for streams that have equally many steps."""
        taken = [stream.work.take(steps) for stream in streams]
        try:
            scores = self._step(streams, np.concatenate(taken).reshape(len(taken), -1))
        except Exception as error:
            if len(streams) == 1:
                return [(streams[0], [Failed(error)])]
            # Whichever of them it was: the others must not suffer for it.
            return [self._listen_alone(stream, pcm) for stream, pcm in zip(streams, taken, strict=True)]
        return [self._apply(stream, row) for stream, row in zip(streams, scores, strict=True)]

    def _listen_alone(self, stream: EngineStream, pcm: Float32Array) -> tuple[EngineStream, list[Event]]:
        try:
            scores = self._step([stream], pcm[np.newaxis])
        except Exception as error:
            return stream, [Failed(error)]
        return self._apply(stream, scores[0])

    def _step(self, streams: list[EngineStream], pcm: Float32Array) -> Float32Array:
        bank = self._bank(streams[0])
        slots = [stream.slot for stream in streams]
        model = streams[0].work.model
        began_s = time.perf_counter()
        scores, states = model.step(pcm, bank.gather(slots))
        self.steps_s.add(time.perf_counter() - began_s)
        self.batches.add(len(streams))
        self.heard_s += pcm.size / model.metadata.sample_rate_hz
        bank.scatter(slots, states)
        return scores

    @staticmethod
    def _apply(stream: EngineStream, scores: Float32Array) -> tuple[EngineStream, list[Event]]:
        try:
            return stream, stream.work.apply(scores)
        except Exception as error:
            return stream, [Failed(error)]

    def _report(self, results: list[tuple[EngineStream, list[Event]]]) -> None:
        """Hand results to the loop in one call, and none at all where nobody has to know."""
        news = []
        for stream, events in results:
            if events and isinstance(events[-1], Failed):
                # What else it sends is not listened to.
                stream.parked = True
            else:
                stream.made_events += len(events)
                parks = stream.made_events - stream.taken_events > MAX_UNREAD_EVENTS and not stream.parked
                has_room = stream.wants_room and stream.has_room
                stream.parked = stream.parked or parks
                stream.wants_room = stream.wants_room and not has_room
                if not (events or parks or has_room):
                    continue
            news.append((stream, events, stream.parked))
        if news:
            self._call_loop(self._deliver, news)
