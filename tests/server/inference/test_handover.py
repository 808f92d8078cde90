"""The hand-over between the event loop and the engine's thread, under forced and random interleavings.

In the forced ones, the engine's thread stops wherever it calls into a session, and the event loop acts on
that stream before it goes on. So each race between the two happens, on any machine, and not by chance.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import pytest
from earmark_server.inference.events import Failed
from earmark_server.inference.pending_audio import End
from hypothesis import given, settings
from hypothesis import strategies as st
from support.deadlines import DEADLINE_S
from support.fake_engine import Bench, FakeSession, events_of, samples, until
from support.server_rig import run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from earmark_server.inference.events import Event
    from earmark_server.inference.stream_handle import StreamHandle


@contextlib.contextmanager
def tiny_switch_interval() -> Iterator[None]:
    """Let the interpreter switch between the threads as often as it can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


class InterruptedSession(FakeSession):
    """A session that lets the event loop act whenever the engine's thread calls into it."""

    def __init__(self, model: Any, interrupt: Callable[[], None]) -> None:
        super().__init__(model)
        self.interrupt = interrupt

    @property
    def has_pending(self) -> bool:
        # Between the two halves of the engine's decision to queue the stream.
        has_pending = super().has_pending
        self.interrupt()
        return has_pending or super().has_pending

    def prepare(self, limit_s: float) -> int:
        self.interrupt()
        steps = super().prepare(limit_s)
        self.interrupt()
        return steps

    def consume(self, steps: int) -> Any:
        self.interrupt()
        return super().consume(steps)

    def apply(self, scores: Any) -> list[Event]:
        self.interrupt()
        events = super().apply(scores)
        self.interrupt()
        return events

    def progress(self) -> list[Event]:
        self.interrupt()
        return []


def test_thousands_of_short_streams_with_a_tiny_switch_interval() -> None:
    async def scenario() -> None:
        async with Bench() as bench:

            async def stream(number: int) -> None:
                for turn in range(50):
                    # It yields the interpreter to the event loop in the middle of each decision.
                    session = InterruptedSession(bench.model, lambda: time.sleep(0))
                    with bench.engine.open_stream(session, 3 * 10**9) as handle:
                        sent = 1 + (number + turn) % 5
                        for i in range(sent):
                            handle.send(samples(1.0, 2))
                            if i % 2:
                                await asyncio.sleep(0)
                            if handle.at_capacity:
                                await handle.wait_for_capacity()
                        handle.end()
                        events = await events_of(handle, 2 * sent)
                        assert [event.audio_ns for event in events] == [101 + i for i in range(2 * sent)]

            with tiny_switch_interval():
                await asyncio.gather(*(stream(number) for number in range(40)))
            assert bench.engine.thread.is_alive()
            await until(lambda: bench.engine.counters.open_slots == 0)
            assert bench.engine.pending_bytes == 0

    run(scenario)


class Interrupter:
    """Acts on a stream on the event loop, at each call of the engine's thread into its session."""

    def __init__(self, bench: Bench, actions: list[str]) -> None:
        self.loop = asyncio.get_running_loop()
        self.actions = deque(actions)
        self.sent = self.received = 0
        self.is_closed = False
        self.waiting: list[asyncio.Future[None]] = []
        self.handle: StreamHandle = bench.engine.open_stream(
            InterruptedSession(bench.model, self.interrupt), 4 * 10**9
        )

    def interrupt(self) -> None:
        with contextlib.suppress(RuntimeError):  # on the event loop itself there is nothing to interrupt
            asyncio.get_running_loop()
            return
        if self.actions:
            asyncio.run_coroutine_threadsafe(self._act(self.actions.popleft()), self.loop).result(DEADLINE_S)

    async def _act(self, action: str) -> None:
        if self.is_closed:
            return
        match action:
            case "send":
                self.send()
            case "progress":
                self.handle.request_progress()
            case "capacity":
                if not any(not one.done() for one in self.waiting):
                    self.waiting.append(asyncio.ensure_future(self.handle.wait_for_capacity()))
            case "close":
                self.is_closed = True
                self.handle.close()

    def send(self) -> None:
        self.sent += 1
        self.handle.send(samples(1.0))

    async def receive_all(self) -> None:
        """Receive the event of each sample, in order, also of those that are sent meanwhile."""
        async with asyncio.timeout(DEADLINE_S):
            while self.received < self.sent:
                for event in await self.handle.events():
                    self.received += 1
                    assert event.audio_ns == 100 + self.received
                await asyncio.gather(*self.waiting)


actions = st.lists(st.sampled_from(["send", "send", "send", "progress", "capacity", "nothing"]), max_size=30)


@settings(max_examples=60, deadline=None)
@given(plans=st.lists(actions, min_size=1, max_size=4), closed=actions)
def test_forced_interleavings_lose_and_repeat_nothing(plans: list[list[str]], closed: list[str]) -> None:
    async def scenario() -> None:
        async with Bench() as bench:
            streams = [Interrupter(bench, plan) for plan in plans]
            doomed = Interrupter(bench, [*closed, "close"])
            for stream in (*streams, doomed):
                stream.send()
            for stream in streams:
                await stream.receive_all()
                stream.actions.clear()
                await until(lambda: not bench.engine.counters.is_busy)
                await stream.receive_all()
                assert stream.handle.pending_samples == 0
                stream.handle.close()
            for waiting in doomed.waiting:
                waiting.cancel()
            doomed.handle.close()
            assert bench.engine.thread.is_alive()
            await until(lambda: bench.engine.counters.open_slots == 0)
            assert bench.engine.pending_bytes == 0

    run(scenario)


def test_audio_that_arrives_while_the_engine_queues_the_stream_is_processed_once() -> None:
    async def scenario() -> None:
        async with Bench() as bench:
            for _ in range(20):
                stream = Interrupter(bench, ["send"] * 10)
                stream.send()
                await events_of(stream.handle, 11)
                assert stream.sent == 11
                stream.handle.close()
            assert bench.engine.thread.is_alive()

    run(scenario)


def test_announcing_a_stream_again_and_again_puts_it_into_the_queue_once() -> None:
    async def scenario() -> None:
        async with Bench() as bench:
            await bench.block()
            stream = bench.open()
            for _ in range(100):
                stream.send(samples(1.0))
                bench.engine.notify(stream)
            assert bench.engine.queue_length == 1
            bench.model.go.set()
            events = await events_of(stream, 100)
            assert [event.audio_ns for event in events] == list(range(101, 201))

    run(scenario)


METHODS = {"prepare": 0, "consume": None, "apply": None, "skip_quiet": None}
PROPERTIES = {
    "has_pending": True,
    "is_quiet": False,
    "starts_from_initial_state": False,
    "processed_samples": 0,
}


@pytest.mark.parametrize("operation", [*METHODS, *PROPERTIES])
def test_an_exception_of_one_stream_ends_that_stream_only(operation: str) -> None:
    class Failing(FakeSession):
        """Fails in one operation once `fails` is set."""

        fails = False

    def fail(self: Failing, *_: object) -> Any:
        if self.fails:
            raise ValueError(f"{operation} fails")
        return METHODS.get(operation, PROPERTIES.get(operation))

    if operation in METHODS:
        setattr(Failing, operation, fail)
    else:
        setattr(Failing, operation, property(fail, lambda *_: None))
    if operation in ("skip_quiet", "is_quiet"):
        Failing.prepare = lambda *_: 0  # type: ignore[method-assign]
    if operation == "skip_quiet":
        Failing.is_quiet = True

    async def scenario() -> None:
        async with Bench() as bench:
            good = [bench.open() for _ in range(3)]
            session = Failing(bench.model)
            bad = bench.engine.open_stream(session, 10**9)
            await until(lambda: bench.engine.counters.open_slots == 4)
            await bench.block()
            for stream in (good[0], bad, *good[1:]):
                stream.send(samples(1.0))
            session.fails = True
            bench.model.go.set()
            (event,) = await events_of(bad, 1)
            assert isinstance(event, Failed)
            assert "fails" in str(event.error)
            for stream in good:
                assert (await events_of(stream, 1))[0].audio_ns == 101
                stream.send(samples(1.0))
                stream.send(End.OF_AUDIO)
                assert (await events_of(stream, 1))[0].audio_ns == 102
            # It gets nothing more, whatever it sends.
            bad.send(samples(1.0))
            bad.close()
            assert bench.engine.thread.is_alive()
            await until(lambda: bench.engine.counters.open_slots == 4)

    run(scenario)


def test_a_stream_for_which_there_is_no_memory_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from earmark_server.inference.state_pool import StatePool

    async def scenario() -> None:
        async with Bench() as bench:
            good = bench.open()
            good.send(samples(1.0))
            await events_of(good, 1)
            acquire = StatePool.acquire

            def no_memory(_: StatePool) -> int:
                raise MemoryError

            monkeypatch.setattr(StatePool, "acquire", no_memory)
            bad = bench.open()
            bad.send(samples(1.0))
            (event,) = await events_of(bad, 1)
            assert isinstance(event.error, MemoryError)
            bad.close()
            monkeypatch.setattr(StatePool, "acquire", acquire)
            good.send(samples(1.0))
            await events_of(good, 1)
            await until(lambda: bench.engine.pending_bytes == 0)

    run(scenario)
