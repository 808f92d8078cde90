"""The load generator: a process that streams in real time and notes what comes back, and when.

Chunk k of a stream is due when its last sample would have been spoken: start + (k + 1) * chunk,
whatever became of the chunks before it (no coordinated omission). Requests are serialized
beforehand and answers are bytes until they are looked at, so that it costs little.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import signal
import time
from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
from earmark.v1 import keyword_spotting_service_pb2 as rpcs
from earmark_server import event_loop

from benchmarks.speech import BenchmarkError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from multiprocessing.connection import Connection

STREAMS_PER_CONNECTION = 100
"""As many as HTTP/2 recommends every server to allow, and proxies open."""

_METHOD = "/earmark.v1.KeywordSpottingService/StreamingSpot"
_START_TIMEOUT_S = 60
_GRACE_S = 30
_LEAD_S = 0.2


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """One stream: when it starts, where in the loop, and what must come of it."""

    start_s: float
    first_chunk: int
    answers: Mapping[str, int]
    """The id of every detection, and the number of the chunk that decides it."""


@dataclass(frozen=True, slots=True)
class Load:
    """All that one generator process has to know."""

    address: str
    config: bytes
    requests: tuple[bytes, ...]
    chunk_s: float
    chunk_count: int
    plans: Sequence[StreamPlan]


@dataclass(slots=True)
class Outcome:
    """What a stream, a generator, or all of them together brought."""

    expected: int = 0
    got: int = 0
    delays_s: array[float] = field(default_factory=lambda: array("d"))
    """For every detection that a chunk decided: from the sending of that chunk to the event."""
    late_s: array[float] = field(default_factory=lambda: array("d"))
    """For every chunk: how long after it was due it was sent."""
    cpu_s: float = 0.0
    problems: Counter[str] = field(default_factory=Counter)

    def add(self, other: Outcome) -> None:
        """Take another one's into this one."""
        self.expected += other.expected
        self.got += other.got
        self.delays_s.extend(other.delays_s)
        self.late_s.extend(other.late_s)
        self.cpu_s += other.cpu_s
        self.problems.update(other.problems)


class Generators:
    """Generator processes that are connected and wait for the signal to begin."""

    def __init__(self, controls: Sequence[Connection]) -> None:
        self._controls = controls

    def begin(self) -> float:
        """Let all of them begin, at one time on the monotonic clock, which is returned."""
        begin_s = time.monotonic() + _LEAD_S
        for control in self._controls:
            control.send(begin_s)
        return begin_s

    def finish(self, timeout_s: float) -> Outcome:
        """Wait until all of them are through, that long at most beyond the grace."""
        total = Outcome()
        for control in self._controls:
            total.add(_receive(control, timeout_s + 2 * _GRACE_S))
        return total


@contextlib.contextmanager
def generators(loads: Sequence[Load]) -> Iterator[Generators]:
    """Run a generator process for each load. Raises BenchmarkError if one cannot connect."""
    # Not forked: gRPC must not be used before a fork.
    context = multiprocessing.get_context("spawn")
    controls, processes = [], []
    try:
        for load in loads:
            control, its_end = context.Pipe()
            process = context.Process(target=_run, args=(load, its_end), daemon=True)
            process.start()
            its_end.close()
            controls.append(control)
            processes.append(process)
        for control in controls:
            _receive(control, _START_TIMEOUT_S)
        yield Generators(controls)
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _receive(control: Connection, timeout_s: float) -> Any:
    try:
        if control.poll(timeout_s):
            return control.recv()
    except EOFError:
        raise BenchmarkError("A load generator has died; what it wrote is above.") from None
    raise BenchmarkError(f"A load generator did not answer for {timeout_s:g} s.")


# In the generator's process.


def _run(load: Load, control: Connection) -> None:
    # An interrupt is for the process above, which then ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    event_loop.run(_generate(load, control))


async def _generate(load: Load, control: Connection) -> None:
    async with contextlib.AsyncExitStack() as stack:
        methods: list[Any] = []
        for _ in range(0, len(load.plans), STREAMS_PER_CONNECTION):
            # Equal channels of a process would share one connection otherwise.
            options = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0))
            channel = grpc.aio.insecure_channel(load.address, options=options)
            await stack.enter_async_context(channel)
            await channel.channel_ready()
            # Without serializers: bytes go through as they are.
            methods.append(channel.stream_stream(_METHOD))
        control.send(None)
        begin_s = await asyncio.to_thread(control.recv)
        cpu_s = time.process_time()
        streams = (
            _stream(methods[i % len(methods)], load, plan, begin_s) for i, plan in enumerate(load.plans)
        )
        total = Outcome()
        for outcome in await asyncio.gather(*streams):
            total.add(outcome)
        total.cpu_s = time.process_time() - cpu_s
        control.send(total)


async def _stream(method: Any, load: Load, plan: StreamPlan, begin_s: float) -> Outcome:
    start_s = begin_s + plan.start_s
    await _sleep_until(start_s)
    call = method(timeout=load.chunk_count * load.chunk_s + _GRACE_S)
    reading = asyncio.create_task(_read(call))
    outcome = Outcome(expected=len(plan.answers))
    sent_s: list[float] = []
    # A call that is over fails to write; reading it tells why it is.
    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        await call.write(load.config)
        for i in range(load.chunk_count):
            due_s = start_s + (i + 1) * load.chunk_s
            in_time = time.monotonic() < due_s
            await _sleep_until(due_s)
            now_s = time.monotonic()
            outcome.late_s.append(max(0.0, now_s - due_s))
            # What was held back by the write before it counts from when it should have gone.
            sent_s.append(now_s if in_time else due_s)
            await call.write(load.requests[(plan.first_chunk + i) % len(load.requests)])
        await call.done_writing()
    received, problem = await reading
    if problem:
        outcome.problems[problem] += 1
    _judge(plan, received, sent_s, outcome)
    return outcome


async def _sleep_until(moment_s: float) -> None:
    if (left_s := moment_s - time.monotonic()) > 0:
        await asyncio.sleep(left_s)


async def _read(call: Any) -> tuple[list[tuple[str, float]], str]:
    """Read all events: each detection's id and when it came, and what went wrong, if anything."""
    received: list[tuple[str, float]] = []
    ended = False
    try:
        while (answer := await call.read()) is not grpc.aio.EOF:
            now_s = time.monotonic()
            event = rpcs.StreamingSpotResponse.FromString(answer)
            if event.HasField("detection"):
                received.append((event.detection.detection_id, now_s))
            ended = event.HasField("ended")
    except grpc.aio.AioRpcError as error:
        return received, f"a stream broke: {error.code().name}: {error.details()}"
    return received, "" if ended else "a stream ended without its `ended`"


def _judge(
    plan: StreamPlan, received: Sequence[tuple[str, float]], sent_s: Sequence[float], outcome: Outcome
) -> None:
    missing = dict(plan.answers)
    for detection_id, received_s in received:
        decided_by = missing.pop(detection_id, None)
        if decided_by is None:
            again = detection_id in plan.answers
            outcome.problems[f"{detection_id} came {'twice' if again else 'although it should not'}"] += 1
            continue
        outcome.got += 1
        # What only the end of the stream decides is the last word's tail, not a delay.
        if decided_by < len(sent_s):
            outcome.delays_s.append(received_s - sent_s[decided_by])
    for detection_id in missing:
        outcome.problems[f"{detection_id} was lost"] += 1
