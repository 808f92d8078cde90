"""The engine's thread: it keeps the queue of streams that are due and runs the models in batches."""

from __future__ import annotations

import enum
import logging
import queue
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Literal, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from earmark_server.inference.counters import EngineCounters
from earmark_server.inference.events import Failed
from earmark_server.inference.load import Load
from earmark_server.inference.state_pool import StatePool
from earmark_server.logs import log

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from earmark_spotter import SpotterModel
    from earmark_spotter.model import Float32Array

    from earmark_server.inference.events import Event
    from earmark_server.inference.stream_handle import StreamHandle

_LOGGER = logging.getLogger(__name__)

MAX_BATCH = 64
"""Streams in one inference; a larger batch is no faster per stream."""

MAX_UNREAD_EVENTS = 256
"""Events of one stream that may be unread; beyond it the engine parks the stream."""

# Audio of one stream in a round: a second for a lone stream, so that recordings are fast, and down to
# 200 ms when many streams are queued, so that none of them waits long.
_MAX_ROUND_S = 1.0
_MIN_ROUND_S = 0.2


class Command(enum.Enum):
    """An instruction from the event loop about one stream."""

    OPEN = enum.auto()
    CLOSE = enum.auto()
    REPORT_CAPACITY = enum.auto()
    UNPARK = enum.auto()
    REPORT_PROGRESS = enum.auto()


class Result(NamedTuple):
    """Events of one stream for the event loop; `parked`: the engine waits until they are read."""

    handle: StreamHandle
    events: Sequence[Event]
    parked: bool


class Notifications:
    """Streams whose audio became due: the event loop adds them, and the engine's thread removes them.

    A stream is in here at most once. `is_notified` of its handle is set before the stream is added and
    reset after it was removed. The engine's thread looks at the stream's audio after the reset, so audio
    that arrives at any moment is either announced or seen.
    """

    def __init__(self) -> None:
        self._handles: deque[StreamHandle] = deque()

    def __len__(self) -> int:
        return len(self._handles)

    @property
    def oldest_s(self) -> float:
        """The time at which the first stream was added; infinity if there is none."""
        try:
            return self._handles[0].notified_s
        except IndexError:
            return float("inf")

    def add(self, handle: StreamHandle) -> None:
        """Add a stream; on the event loop only."""
        if not handle.is_notified:
            handle.is_notified = True
            handle.notified_s = time.monotonic()
            self._handles.append(handle)

    def pop(self) -> StreamHandle | None:
        """Remove and return the first stream, None if there is none; on the engine's thread only."""
        if not self._handles:
            return None
        handle = self._handles.popleft()
        handle.is_notified = False
        return handle


class EngineSlot:
    """A stream's place in the engine. It belongs to the engine's thread, which alone reads and writes it."""

    __slots__ = (
        "handle",
        "has_failed",
        "index",
        "is_parked",
        "is_queued",
        "made_events",
        "queued_s",
        "session",
        "wants_capacity",
    )

    def __init__(self, handle: StreamHandle, index: int) -> None:
        self.handle = handle
        self.session = handle.session
        self.index = index
        """The row in the state pool; -1 once the stream is closed."""
        self.is_queued = False
        self.queued_s = 0.0
        self.is_parked = False
        """Whether inference waits until the call has read its events."""
        self.has_failed = False
        self.wants_capacity = False
        """Whether the call waits for capacity."""
        self.made_events = 0

    @property
    def can_run(self) -> bool:
        """Whether the stream may be processed at all."""
        return self.index >= 0 and not self.is_parked and not self.has_failed

    @property
    def is_due(self) -> bool:
        """Whether the stream should be queued for inference now."""
        return (self.handle.is_due or self.wants_capacity) and self.session.has_pending


class EngineThread:
    """The thread that owns all slots, the queue and the state pools, and the ways to reach it."""

    def __init__(self, deliver: Callable[[list[Result]], bool]) -> None:
        """`deliver` passes results to the event loop, and returns False if there is no loop any more."""
        self.thread = threading.Thread(target=self._run, name="earmark-engine", daemon=True)
        self.counters = EngineCounters()
        self.load = Load()
        self._deliver = deliver
        # Filled by the event loop, emptied by the thread.
        self._notifications = Notifications()
        self._commands: queue.SimpleQueue[tuple[StreamHandle, Command] | Literal["wake", "end"]] = (
            queue.SimpleQueue()
        )
        self._is_waiting = False  # set by the thread before it waits, reset by the event loop to wake it
        # The rest is the thread's alone. A state pool is freed with its model.
        self._slots: dict[StreamHandle, EngineSlot] = {}
        self._queue: deque[EngineSlot] = deque()
        self._pools: WeakKeyDictionary[SpotterModel, StatePool] = WeakKeyDictionary()

    # Called by the event loop.

    def start(self) -> None:
        """Start the thread."""
        self.thread.start()

    def end(self) -> None:
        """Let the thread end after its current round."""
        self._commands.put("end")

    def command(self, handle: StreamHandle, command: Command) -> None:
        """Give an instruction about a stream."""
        self._commands.put((handle, command))

    def notify(self, handle: StreamHandle) -> None:
        """Announce that a stream is due; `wake` has to follow."""
        self._notifications.add(handle)

    def wake(self) -> None:
        """Wake the thread if it waits."""
        if self._is_waiting:
            self._is_waiting = False
            self._commands.put("wake")

    # Read by any thread; the values may be a moment old.

    @property
    def queue_length(self) -> int:
        """The number of streams that wait for inference."""
        return len(self._queue) + len(self._notifications)

    @property
    def lag_s(self) -> float:
        """How long the first stream in the queue has waited; 0 if the queue is empty."""
        try:
            since_s = self._queue[0].queued_s
        except IndexError:
            since_s = float("inf")
        return max(0.0, time.monotonic() - min(since_s, self._notifications.oldest_s))

    # On the thread.

    def _run(self) -> None:
        try:
            while self._execute_commands():
                self._queue_notified()
                if self._queue:
                    began_s = time.monotonic()
                    waited_s = began_s - self._queue[0].queued_s
                    self.counters.queue_wait_s.add(waited_s)
                    live_share = self._run_round(began_s)
                    self.load.add_round(began_s, time.monotonic(), waited_s, live_share)
        except BaseException as error:  # nothing above logs it; the watchdog sees that the thread is gone
            log(_LOGGER, logging.CRITICAL, "engine died", exc_info=error)

    def _execute_commands(self) -> bool:
        """Execute the commands that have arrived, and wait for one if no stream is due; False at the end."""
        counters = self.counters
        # In this order: a stream that is announced from here on wakes the thread.
        self._is_waiting = True
        is_idle = not self._queue and not self._notifications
        for _ in range(max(self._commands.qsize(), is_idle)):
            counters.is_busy = False
            command = self._commands.get()
            counters.is_busy = True
            counters.heartbeat += 1
            if command == "end":
                return False
            if command != "wake":
                handle, instruction = command
                try:
                    self._execute(handle, instruction)
                except Exception as error:
                    self._fail(handle, error)
        self._is_waiting = False
        return True

    def _execute(self, handle: StreamHandle, command: Command) -> None:
        if command is Command.OPEN:
            slot = self._slots[handle] = EngineSlot(handle, self._pool(handle.session.model).acquire())
            self.counters.open_slots += 1
            self._queue_if_due(slot)  # audio may have arrived before the stream had a slot
            return
        slot_or_none = self._slots.get(handle)
        if slot_or_none is None:
            return
        slot = slot_or_none
        match command:
            case Command.CLOSE:
                del self._slots[handle]
                self._pool(slot.session.model).release(slot.index)
                slot.index = -1
                self.counters.open_slots -= 1
            case Command.REPORT_CAPACITY:
                slot.wants_capacity = True
                self._report([(slot, [])])
                self._queue_if_due(slot)
            case Command.UNPARK:
                slot.is_parked = False
                self._queue_if_due(slot)
            case Command.REPORT_PROGRESS:
                progress = slot.session.progress()
                if progress is not None:
                    self._report([(slot, [progress])])

    def _pool(self, model: SpotterModel) -> StatePool:
        pool = self._pools.get(model)
        if pool is None:
            pool = self._pools[model] = StatePool(model)
        return pool

    def _queue_notified(self) -> None:
        """Move the streams that the event loop announced to the queue, in their order."""
        while (handle := self._notifications.pop()) is not None:
            slot = self._slots.get(handle)
            if slot is not None:
                self._queue_if_due(slot, handle.notified_s)

    def _queue_if_due(self, slot: EngineSlot, since_s: float | None = None) -> None:
        """Append a stream to the queue unless it is there or need not be; the one place that appends."""
        if not slot.is_queued and slot.can_run and slot.is_due:
            slot.is_queued = True
            slot.queued_s = time.monotonic() if since_s is None else since_s
            self._queue.append(slot)

    def _run_round(self, now_s: float) -> float:
        """Run inference for the first streams in the queue, batch by batch; return their live share."""
        limit_s = max(_MIN_ROUND_S, _MAX_ROUND_S / len(self._queue))
        count = min(len(self._queue), MAX_BATCH)
        live_count = 0
        # Streams of one model with equally many steps make a batch.
        batches: dict[tuple[int, int], list[tuple[EngineSlot, Float32Array]]] = {}
        for _ in range(count):
            self.counters.heartbeat += 1
            slot = self._queue.popleft()
            slot.is_queued = False
            if not slot.can_run:
                continue
            handle, session = slot.handle, slot.session
            try:
                handle.pace.update(now_s, handle.sent_ns, has_ended=handle.has_ended)
                live_count += handle.pace.is_live
                steps = session.prepare(limit_s)
                if steps:
                    batch = batches.setdefault((id(session.model), steps), [])
                    batch.append((slot, session.consume(steps)))
            except Exception as error:
                self._fail(handle, error)
        for batch in batches.values():
            self.counters.heartbeat += 1
            self._report(self._process(batch))
            # Newly announced streams go before these, which had their turn.
            self._queue_notified()
            for slot, _ in batch:
                self._queue_if_due(slot)
        return live_count / count

    def _process(self, batch: list[tuple[EngineSlot, Float32Array]]) -> list[tuple[EngineSlot, list[Event]]]:
        """Run the model on a batch; return the events of each stream."""
        slots = [slot for slot, _ in batch]
        try:
            pcm = np.concatenate([samples for _, samples in batch]).reshape(len(batch), -1)
            scores = self._infer(slots, pcm)
        except Exception as error:
            if len(batch) == 1:
                return [(slots[0], [Failed(error)])]
            # One of the streams is at fault: run each of them alone, so that the others are unaffected.
            return [result for each in batch for result in self._process([each])]
        return [(slot, self._apply(slot, row)) for slot, row in zip(slots, scores, strict=True)]

    def _infer(self, slots: list[EngineSlot], pcm: Float32Array) -> Float32Array:
        """Run the model on pcm [streams, samples]; return scores [streams, frames, classes]."""
        counters, model = self.counters, slots[0].session.model
        pool = self._pool(model)
        indices = [slot.index for slot in slots]
        began_s = time.perf_counter()
        scores, states = model.step(pcm, pool.gather(indices))
        counters.inference_s.add(time.perf_counter() - began_s)
        counters.batch_sizes.add(len(slots))
        counters.processed_audio_s += pcm.size / model.metadata.sample_rate_hz
        pool.scatter(indices, states)
        return scores

    @staticmethod
    def _apply(slot: EngineSlot, scores: Float32Array) -> list[Event]:
        try:
            return slot.session.apply(scores)
        except Exception as error:
            return [Failed(error)]

    def _fail(self, handle: StreamHandle, error: Exception) -> None:
        """End a stream with an error; no other stream is affected."""
        slot = self._slots.get(handle)
        if slot is None:
            self._send([Result(handle, [Failed(error)], parked=False)])
        else:
            self._report([(slot, [Failed(error)])])

    def _report(self, results: list[tuple[EngineSlot, list[Event]]]) -> None:
        """Pass results to the event loop in one call, and in none if there is nothing to tell."""
        news = []
        for slot, events in results:
            handle = slot.handle
            if events and isinstance(events[-1], Failed):
                slot.has_failed = True
            else:
                slot.made_events += len(events)
                unread = slot.made_events - handle.consumed_events
                is_parked_now = unread > MAX_UNREAD_EVENTS and not slot.is_parked
                frees_capacity = slot.wants_capacity and handle.has_capacity
                slot.is_parked = slot.is_parked or is_parked_now
                slot.wants_capacity = slot.wants_capacity and not frees_capacity
                if not (events or is_parked_now or frees_capacity):
                    continue
            news.append(Result(handle, events, slot.is_parked))
        if news:
            self._send(news)

    def _send(self, results: list[Result]) -> None:
        if not self._deliver(results):
            # The loop was closed without stopping the engine: no call is left.
            self._commands.put("end")
