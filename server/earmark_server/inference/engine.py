"""The engine: dynamic batching of all streams on one thread next to the event loop.

Dynamic batching. Inference on a batch costs less than on each stream alone: 0.67 ms of CPU for a second of
audio in batches of 4 streams, 0.50 ms in batches of 64. So the engine does not run the model whenever audio
arrives. A stream is *due* when inference on its audio can produce an event (`Session.due_samples`); until
then its audio waits, which delays no event. The engine works in rounds. Each round processes up to 64
streams from the head of the queue of due streams, and, while all streams fit into one batch, the others that
have much audio. It runs the model once for all streams with equally many steps. Silence that follows a
receptive field of silence needs no inference at all. A stream that has more audio is appended to the queue
again, so no stream starves, however fast another one sends. Of streams that send faster than real time, a
round has only as many as can be processed in a tenth of a second, because live ones wait for its end.

Two threads. The event loop reads and writes messages; `StreamHandle` is its side of a stream. The engine's
thread decodes audio, runs the models and detects keywords; `EngineSlot` is its side of a stream. Four
queues connect them: pending audio, `Notifications` of streams that became due, and commands go to the
engine, and results come back through `call_soon_threadsafe`. Each field that both threads use has one
writer, and the reader may see an older value, which only makes it more careful. The exceptions are two
flags, one for a stream that is announced and one for an engine that waits: the first thread sets them, the
second one resets them. So no locks are needed. Only the engine's thread puts streams into its queue, so a
stream is there at most once.

The deliberate sleep. With many live streams, the event loop collects for 1 ms what has become due, wakes
the engine, and then sleeps for up to 20 ms, as network cards do that coalesce interrupts. Messages that
arrive meanwhile are read in one go, the engine has the interpreter to itself, and its batches are larger.
On a gRPC server that does nothing else, at 500 streams, sleeping for 9 ms reduces the CPU time for a second
of audio from 0.43 to 0.36 ms, and sleeping for 19 ms reduces it to 0.22 ms (docs/lab-notes/cost.md). The
event loop does not sleep when it is busy, when fewer than two streams are open, or while a stream sends
faster than real time.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from earmark_server.inference.engine_thread import EngineThread
from earmark_server.inference.handover import Command
from earmark_server.inference.stream_handle import StreamHandle

if TYPE_CHECKING:
    from earmark_server.inference.handover import Result
    from earmark_server.inference.session import Session

# How long the event loop collects streams that are due before it wakes the engine, where it may then sleep.
_COLLECT_S = 0.001
# How long the event loop sleeps: for each open stream but one, and at most.
_SLEEP_PER_STREAM_S = 0.0004
_MAX_SLEEP_S = 0.02
# How long `stop` waits for the thread: one that hangs cannot be ended, only abandoned.
_STOP_TIMEOUT_S = 5


MAX_PENDING_BYTES = 64 << 20
"""Default of the memory that the pending audio of all streams may occupy before they are slowed down."""


class Engine:
    """Runs inference for any number of streams, with any models; all methods belong to the event loop."""

    def __init__(self, max_pending_bytes: int = MAX_PENDING_BYTES) -> None:
        """`max_pending_bytes`: beyond it, streams with more than a little pending audio must wait."""
        self._worker = EngineThread(self._deliver_threadsafe)
        self.thread = self._worker.thread
        self.counters = self._worker.counters
        self.load = self._worker.load
        self._loop: asyncio.AbstractEventLoop | None = None
        self._max_pending_bytes = max_pending_bytes
        self._added_bytes = 0
        self._handles: set[StreamHandle] = set()
        self._wake_is_scheduled = False
        self._all_live = True  # whether all streams announced since the engine was last woken are live

    @property
    def has_due(self) -> bool:
        """Whether streams wait for inference."""
        return self.queue_length > 0

    @property
    def queue_length(self) -> int:
        """The number of streams that wait for inference."""
        return self._worker.queue_length

    @property
    def lag_s(self) -> float:
        """How long the first stream in the queue has waited; 0 if the queue is empty."""
        return self._worker.lag_s

    @property
    def pending_bytes(self) -> int:
        """Memory of the pending audio of all streams."""
        return self._added_bytes - self.counters.released_bytes

    @property
    def has_byte_capacity(self) -> bool:
        """Whether the pending audio of all streams occupies less memory than it may."""
        return self.pending_bytes < self._max_pending_bytes

    def add_pending_bytes(self, count: int) -> None:
        """Count bytes of audio that a stream holds from now on."""
        self._added_bytes += count
        self.counters.loop_heartbeat += 1

    def start(self) -> None:
        """Start the thread, which reports to the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._worker.start()

    async def stop(self) -> None:
        """End the thread after its current round."""
        if self.thread.is_alive():
            self._worker.end()
            await asyncio.to_thread(self.thread.join, _STOP_TIMEOUT_S)

    def open_stream(self, session: Session, max_pending_ns: int, client: str = "") -> StreamHandle:
        """Open a stream.

        `max_pending_ns`: audio that may be pending before reading should pause. `client`: streams that send
        faster than real time share the time that is left equally by client.
        """
        handle = StreamHandle(self, session, max_pending_ns, client)
        self._handles.add(handle)
        self._worker.command(handle, Command.OPEN)
        return handle

    def close_stream(self, handle: StreamHandle) -> None:
        """Release a stream's slot; none of its results is delivered any more."""
        if handle in self._handles:
            self._handles.remove(handle)
            self._worker.command(handle, Command.CLOSE)

    def request_capacity(self, handle: StreamHandle) -> None:
        """Deliver to the stream as soon as it has capacity."""
        self._worker.command(handle, Command.REPORT_CAPACITY)

    def request_progress(self, handle: StreamHandle) -> None:
        """Deliver a Progress event to the stream, if it can resume."""
        self._worker.command(handle, Command.REPORT_PROGRESS)

    def resume_inference(self, handle: StreamHandle) -> None:
        """Resume a stream that was parked because its events were not read."""
        self._worker.command(handle, Command.UNPARK)

    def notify(self, handle: StreamHandle) -> None:
        """Announce to the engine that a stream is due."""
        self._worker.notify(handle)
        self._all_live = self._all_live and handle.pace.is_live
        if self._wake_is_scheduled:
            return
        assert self._loop is not None
        self._wake_is_scheduled = True
        sleep_s = min(_MAX_SLEEP_S, max(0, len(self._handles) - 1) * _SLEEP_PER_STREAM_S)
        if sleep_s:
            self._loop.call_later(
                _COLLECT_S, self._wake_engine, sleep_s, time.monotonic(), time.thread_time()
            )
        else:
            self._loop.call_soon(self._wake_engine)

    def _wake_engine(self, sleep_s: float = 0, since_s: float = 0, cpu_since_s: float = 0) -> None:
        """Wake the engine; then sleep, unless the loop has been busy since the given times."""
        self._wake_is_scheduled = False
        self._worker.wake()
        if sleep_s and self._all_live:
            is_quiet = time.thread_time() - cpu_since_s < (time.monotonic() - since_s) / 2
            if is_quiet:
                time.sleep(sleep_s)  # deliberate: see the module's docstring
        self._all_live = True

    def _deliver_threadsafe(self, results: list[Result]) -> bool:
        """Pass results to the event loop; called on the engine's thread. False if the loop is closed."""
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(self._deliver, results)
        except RuntimeError:
            return False
        return True

    def _deliver(self, results: list[Result]) -> None:
        for handle, events, parked, has_capacity in results:
            if handle in self._handles:
                handle.deliver(events, parked=parked, has_capacity=has_capacity)
