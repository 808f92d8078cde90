"""The engine's thread: it keeps the queue of streams that are due and runs the models in batches."""

from __future__ import annotations

import logging
import queue
import threading
import time
from typing import TYPE_CHECKING, Literal, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from earmark_server.inference.counters import EngineCounters
from earmark_server.inference.engine_slot import EngineSlot
from earmark_server.inference.events import Failed
from earmark_server.inference.handover import Command, Notifications, Result
from earmark_server.inference.load import Load
from earmark_server.inference.run_queue import RunQueue
from earmark_server.inference.state_pool import StatePool
from earmark_server.logs import log

if TYPE_CHECKING:
    from collections.abc import Callable

    from earmark_spotter import SpotterModel
    from earmark_spotter.model import Float32Array

    from earmark_server.inference.events import Event
    from earmark_server.inference.session import Lane
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

# A live stream has no more audio than this, so its round is not split.
_LIVE_ROUND_S = 0.4
# How long a round with streams that send faster than real time should take, because live ones wait for its
# end. The verifier can make the audio of one stream a hundred times as expensive as that of another.
_FAST_ROUND_S = 0.1
_FIRST_MAX_FAST = 8
# While all streams fit into one batch, a round includes those with this much audio, due or not.
_JOIN_S = 0.2


class _Work(NamedTuple):
    """Samples of one lane of a stream, [steps * step_samples], and the row of its state."""

    slot: EngineSlot
    lane: Lane
    row: int
    samples: Float32Array


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
        self._queue = RunQueue()
        self._pools: WeakKeyDictionary[SpotterModel, StatePool] = WeakKeyDictionary()
        self._waiting: dict[EngineSlot, None] = {}  # the streams that wait for capacity
        self._max_fast = _FIRST_MAX_FAST  # streams in a round that send faster than real time

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
        """How long the live stream that is next has waited; 0 if there is none."""
        since_s = min(self._queue.oldest_live_s, self._notifications.oldest_s)
        return max(0.0, time.monotonic() - since_s)

    # On the thread.

    def _run(self) -> None:
        try:
            while self._execute_commands():
                self._queue_notified()
                if self._queue:
                    began_s = time.monotonic()
                    waited_s = max(0.0, began_s - self._queue.oldest_live_s)
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
            self._open(handle)
            return
        if command is Command.CLOSE:
            self._close(handle)
            return
        slot = self._slots.get(handle)
        if slot is None:
            return  # opening the stream failed
        match command:
            case Command.REPORT_CAPACITY:
                slot.wants_capacity = True
                self._waiting[slot] = None
                self._report([(slot, [])])
                self._queue_if_due(slot)
            case Command.UNPARK:
                slot.is_parked = False
                self._queue_if_due(slot)
            case Command.REPORT_PROGRESS:
                self._report([(slot, slot.session.progress())])

    def _open(self, handle: StreamHandle) -> None:
        rows = [self._pool(lane.model).acquire() for lane in handle.session.lanes]
        slot = self._slots[handle] = EngineSlot(handle, rows)
        self.counters.open_slots += len(rows)
        self._queue_if_due(slot)  # audio may have arrived before the stream had a slot

    def _close(self, handle: StreamHandle) -> None:
        released_bytes = 0
        slot = self._slots.pop(handle, None)
        if slot is not None:
            released_bytes = slot.released_bytes
            self._waiting.pop(slot, None)
            for lane, row in zip(slot.session.lanes, slot.rows, strict=True):
                self._pool(lane.model).release(row)
            self.counters.open_slots -= len(slot.rows)
            slot.rows = ()
        # The call may be referenced for longer, by a timer for example. Its audio is freed now.
        handle.session.pending.clear()
        self.counters.released_bytes += handle.sent_bytes - released_bytes
        self._report_capacity()

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
        try:
            is_due = not slot.is_queued and slot.can_run and slot.is_due
        except Exception as error:
            self._fail(slot.handle, error)
            return
        if is_due:
            slot.is_queued = True
            slot.queued_s = time.monotonic() if since_s is None else since_s
            self._queue.append(slot)

    def _run_round(self, now_s: float) -> float:
        """Run inference for the first streams in the queue, batch by batch; return their live share."""
        limit_s = max(_MIN_ROUND_S, _MAX_ROUND_S / len(self._queue))
        due: list[EngineSlot] = []
        lane_count = fast_count = 0
        while self._queue and lane_count < MAX_BATCH:
            slot = self._queue.pop() if fast_count < self._max_fast else self._queue.pop_live()
            if slot is None:
                break
            slot.is_queued = False
            lane_count += len(slot.rows)
            fast_count += not slot.handle.pace.is_live
            due.append(slot)
        is_live: dict[EngineSlot, bool] = {}
        # Lanes of one model with equally many steps make a batch.
        batches: dict[tuple[int, int], list[_Work]] = {}
        done: dict[EngineSlot, None] = {}
        for slot, lane, row in self._lanes_to_run(due):
            self.counters.heartbeat += 1
            if not slot.can_run:
                continue
            try:
                if slot not in is_live:
                    is_live[slot] = slot.update_pace(now_s)
                steps = lane.prepare(max(limit_s, _LIVE_ROUND_S) if is_live[slot] else limit_s)
                self._release_bytes(slot, slot.session.pending.released_bytes)
                if steps:
                    if lane.starts_from_initial_state:
                        self._pool(lane.model).reset(row)
                    batch = batches.setdefault((id(lane.model), steps), [])
                    batch.append(_Work(slot, lane, row, lane.consume(steps)))
                elif lane.is_quiet:
                    self._report([(slot, self._skip_quiet(slot, lane))])
                    done[slot] = None
            except Exception as error:
                self._fail(slot.handle, error)
        for batch in batches.values():
            self.counters.heartbeat += 1
            self._report(self._process(batch))
            done |= dict.fromkeys(work.slot for work in batch)
        # Newly announced streams go before these, which had their turn.
        self._queue_notified()
        for slot in done:
            self._queue_if_due(slot)
        self._report_capacity()
        if fast_count:
            self._adapt_max_fast(fast_count, time.monotonic() - now_s)
        return sum(is_live.values()) / max(1, len(is_live))

    def _adapt_max_fast(self, fast_count: int, round_s: float) -> None:
        """Choose how many fast streams a round may have, after one with `fast_count` that took `round_s`."""
        if round_s > _FAST_ROUND_S:
            self._max_fast = max(1, int(fast_count * _FAST_ROUND_S / round_s))
        elif fast_count == self._max_fast and round_s < _FAST_ROUND_S / 2:
            self._max_fast = min(MAX_BATCH, 2 * self._max_fast)

    def _lanes_to_run(self, due: list[EngineSlot]) -> list[tuple[EngineSlot, Lane, int]]:
        """Return the lanes to process in a round with these streams, each with its slot and row.

        Lanes of the same models that have much audio join them. A few streams would otherwise be processed
        one by one. In a common batch they cost a fraction, and from then on they are due at about the same
        time.
        """
        found: list[tuple[EngineSlot, Lane, int]] = []
        for slot in due:
            if not slot.can_run:
                continue
            try:
                found += slot.due_lanes()
            except Exception as error:
                self._fail(slot.handle, error)
        if len(self._slots) > MAX_BATCH:
            return found
        models = {id(lane.model) for _, lane, _ in found}
        lanes = {id(lane) for _, lane, _ in found}
        for slot in list(self._slots.values()):
            if not slot.can_run or slot.is_queued:
                continue
            try:
                joining = list(slot.lanes_with(_JOIN_S))
            except Exception as error:
                self._fail(slot.handle, error)
                continue
            found += [one for one in joining if id(one[1].model) in models and id(one[1]) not in lanes]
        return found

    def _skip_quiet(self, slot: EngineSlot, lane: Lane) -> list[Event]:
        """Process a lane's quiet steps; return the events of its stream."""
        session = slot.session
        before = session.processed_samples
        events = session.collect(lane.skip_quiet())
        seconds = (session.processed_samples - before) / session.audio_format.sample_rate_hz
        self.counters.processed_audio_s += seconds
        return events

    def _release_bytes(self, slot: EngineSlot, released_bytes: int) -> None:
        """Count the audio that a stream does not hold any more; `released_bytes`: since its start."""
        self.counters.released_bytes += released_bytes - slot.released_bytes
        slot.released_bytes = released_bytes

    def _report_capacity(self) -> None:
        """Tell the calls that wait for capacity if there is some."""
        if self._waiting:
            self._report([(slot, []) for slot in self._waiting])

    def _process(self, batch: list[_Work]) -> list[tuple[EngineSlot, list[Event]]]:
        """Run the model on a batch; return the events of each stream."""
        try:
            scores = self._infer(batch)
        except Exception as error:
            if len(batch) == 1:
                return [(batch[0].slot, [Failed(error)])]
            # One of the streams is at fault: run each of them alone, so that the others are unaffected.
            return [result for each in batch for result in self._process([each])]
        results = []
        for work, each in zip(batch, scores, strict=True):
            self.counters.heartbeat += 1  # the verifier can take long for each of them
            results.append((work.slot, self._apply(work, each)))
        return results

    def _infer(self, batch: list[_Work]) -> Float32Array:
        """Run the model on a batch; return scores [streams, frames, classes]."""
        counters, model = self.counters, batch[0].lane.model
        pcm = np.concatenate([work.samples for work in batch]).reshape(len(batch), -1)
        pool = self._pool(model)
        rows = [work.row for work in batch]
        began_s = time.perf_counter()
        scores, states = model.step(pcm, pool.gather(rows))
        counters.inference_s.add(time.perf_counter() - began_s)
        counters.batch_sizes.add(len(batch))
        counters.processed_audio_s += pcm.size / model.metadata.sample_rate_hz
        pool.scatter(rows, states)
        return scores

    @staticmethod
    def _apply(work: _Work, scores: Float32Array) -> list[Event]:
        try:
            return work.slot.session.collect(work.lane.apply(scores))
        except Exception as error:
            return [Failed(error)]

    def _fail(self, handle: StreamHandle, error: Exception) -> None:
        """End a stream with an error; no other stream is affected."""
        slot = self._slots.get(handle)
        if slot is None:
            self._send([Result(handle, [Failed(error)], parked=False, has_capacity=False)])
        else:
            self._report([(slot, [Failed(error)])])

    def _report(self, results: list[tuple[EngineSlot, list[Event]]]) -> None:
        """Pass results to the event loop in one call, and in none if there is nothing to tell."""
        news = []
        for slot, events in results:
            try:
                result = self._result(slot, events)
            except Exception as error:
                result = self._result(slot, [Failed(error)])
            if result is not None:
                news.append(result)
        if news:
            self._send(news)

    def _result(self, slot: EngineSlot, events: list[Event]) -> Result | None:
        if events and isinstance(events[-1], Failed):
            slot.has_failed = True
            return Result(slot.handle, events, parked=False, has_capacity=False)
        slot.made_events += len(events)
        unread = slot.made_events - slot.handle.consumed_events
        is_parked_now = unread > MAX_UNREAD_EVENTS and not slot.is_parked
        slot.is_parked = slot.is_parked or is_parked_now
        has_capacity = slot.frees_capacity
        if has_capacity:
            slot.wants_capacity = False
            self._waiting.pop(slot, None)
        if events or is_parked_now or has_capacity:
            return Result(slot.handle, events, slot.is_parked, has_capacity)
        return None

    def _send(self, results: list[Result]) -> None:
        if not self._deliver(results):
            # The loop was closed without stopping the engine: no call is left.
            self._commands.put("end")
