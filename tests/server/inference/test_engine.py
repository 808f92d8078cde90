"""The engine alone, with a fake model whose inference the tests can block, count and let fail."""

from __future__ import annotations

import asyncio
import itertools
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from earmark_server.inference import engine_thread
from earmark_server.inference.engine_thread import MAX_BATCH, MAX_UNREAD_EVENTS
from earmark_server.inference.events import Failed
from support.deadlines import DEADLINE_S
from support.fake_engine import Bench, events_of, samples, until
from support.server_rig import run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import pytest
    from earmark_server.inference.events import Event


def test_every_stream_keeps_its_own_state() -> None:
    async def scenario() -> None:
        async with Bench() as bench:
            streams = [bench.open() for _ in range(100)]
            for i, stream in enumerate(streams):
                stream.send(samples(i, 3))
            for i, stream in enumerate(streams):
                received = await events_of(stream, 3)
                assert [one.audio_ns for one in received] == [100 + i, 100 + 2 * i, 100 + 3 * i]

    run(scenario)


def test_a_reused_slot_contains_nothing_of_the_previous_stream() -> None:
    async def scenario() -> None:
        async with Bench() as bench:
            for _ in range(50):
                with bench.open() as stream:
                    stream.send(samples(5.0))
                    assert (await events_of(stream, 1))[0].audio_ns == 105
            await until(lambda: bench.engine.counters.open_slots == 0)
            assert bench.engine._worker._pools[bench.model].capacity == 16

    run(scenario)


def test_streams_that_are_due_together_are_batched() -> None:
    async def scenario() -> None:
        async with Bench() as bench:
            await bench.block()
            streams = [bench.open() for _ in range(200)]
            for i, stream in enumerate(streams):
                stream.send(samples(1.0, 2 + i % 2))
            bench.model.go.set()
            for i, stream in enumerate(streams):
                await events_of(stream, 2 + i % 2)
            # Streams with 2 steps and streams with 3 make separate batches, of at most 64 streams.
            assert max(batch for batch, _ in bench.model.batches) <= MAX_BATCH
            assert len(bench.model.batches) <= 1 + 2 * 4

    run(scenario)


def test_a_lone_stream_runs_in_long_batches_and_many_streams_in_short_ones() -> None:
    async def scenario() -> None:
        async with Bench() as bench:
            alone = bench.open()
            alone.send(samples(1.0, 200))
            await events_of(alone, 200)
            assert bench.model.batches == [(1, 50)] * 4

            await bench.block()
            bench.model.batches.clear()
            streams = [bench.open() for _ in range(20)]
            for stream in streams:
                stream.send(samples(1.0, 20))
            bench.model.go.set()
            for stream in streams:
                await events_of(stream, 20)
            assert {steps for _, steps in bench.model.batches[1:]} == {10}

    run(scenario)


def test_a_round_includes_streams_with_much_audio_while_there_are_few() -> None:
    async def scenario() -> None:
        async with Bench() as bench:
            for count in (MAX_BATCH, MAX_BATCH + 1):
                streams = [bench.open() for _ in range(count)]
                await until(lambda n=count: bench.engine.counters.open_slots == n)
                for stream in streams:
                    stream.session.due_samples = 9
                for stream in streams[2:]:
                    stream.send(samples(1.0, 8))
                streams[0].send(samples(1.0, 9))
                await events_of(streams[0], 9)
                if count == MAX_BATCH:
                    for stream in streams[2:]:
                        await events_of(stream, 8)
                    assert sorted(bench.model.batches) == [(1, 9), (count - 2, 8)]
                else:
                    assert all(stream.session.processed_samples == 0 for stream in streams[1:])
                for stream in streams:
                    stream.close()

    run(scenario)


def test_a_stream_is_processed_when_it_is_due_or_ends_or_has_sent_many_messages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engine_thread, "_JOIN_S", float("inf"))

    async def scenario() -> None:
        async with Bench() as bench:
            early, ending, piecemeal, late = (bench.open() for _ in range(4))
            for stream in (early, ending, piecemeal, late):
                stream.session.due_samples = 10
                stream.send(samples(1.0, 9))
            late.send(samples(1.0))
            await events_of(late, 10)
            ending.end()
            await events_of(ending, 9)
            for _ in range(63):
                piecemeal.send(samples(0.1))
            await events_of(piecemeal, 50)
            assert early.session.processed_samples == 0

    run(scenario)


def test_a_stream_with_a_backlog_does_not_delay_another() -> None:
    async def scenario() -> None:
        async with Bench() as bench:
            await bench.block()
            greedy, modest = bench.open(), bench.open()
            greedy.send(samples(1.0, 10_000))
            modest.send(samples(1.0))
            bench.model.go.set()
            await events_of(modest, 1)
            # The first batch is the blocked one; the modest stream was in the next round.
            assert (1, 1) in bench.model.batches[1:3]

    run(scenario)


def test_fast_streams_that_are_expensive_do_not_delay_a_live_one(monkeypatch: pytest.MonkeyPatch) -> None:
    clock: Any = SimpleNamespace(monotonic=lambda: clock.now_s, perf_counter=lambda: 0.0, now_s=0.0)
    monkeypatch.setattr(engine_thread, "time", clock)
    applied: list[bool] = []  # whether it was the live one

    def set_up(stream: Any, *, is_live: bool) -> None:
        apply = stream.session.apply

        def apply_slowly(scores: Any) -> Any:
            clock.now_s += 0 if is_live else 0.04
            applied.append(is_live)
            return apply(scores)

        stream.session.apply = apply_slowly
        stream.pace.update = lambda *_, **__: None
        stream.pace.is_live = is_live

    async def scenario() -> None:
        async with Bench() as bench:
            await bench.block()
            streams = [bench.open() for _ in range(2 * MAX_BATCH)]
            for stream in streams:
                set_up(stream, is_live=stream is streams[0])
                stream.send(samples(1.0, 1000))
            bench.model.go.set()
            await events_of(streams[0], 200)
            between = [len(list(group)) for is_live, group in itertools.groupby(applied) if not is_live]
            # The first round has more, because nothing is known of the streams.
            assert len(between) >= 5
            assert max(between[1:-1]) <= 2

    run(scenario)


def test_every_stream_of_a_batch_counts_as_progress() -> None:
    async def scenario() -> None:
        async with Bench() as bench:
            counters = bench.engine.counters
            beats: list[int] = []

            def apply(_scores: Any) -> list[Event]:
                beats.append(counters.heartbeat)
                return []

            await bench.block()
            for stream in [bench.open() for _ in range(10)]:
                stream.session.apply = apply
                stream.send(samples(1.0))
            bench.model.go.set()
            await until(lambda: len(beats) == 10)
            assert len(set(beats)) == 10

    run(scenario)


def test_a_failing_step_ends_its_own_stream_only() -> None:
    async def scenario() -> None:
        async with Bench() as bench:
            bench.model.poison = 666
            await bench.block()
            streams = [bench.open() for _ in range(10)]
            for i, stream in enumerate(streams):
                stream.send(samples(666.0 if i == 3 else 1.0))
            bench.model.go.set()
            for i, stream in enumerate(streams):
                (event,) = await events_of(stream, 1)
                if i == 3:
                    assert isinstance(event, Failed)
                    assert "poisoned" in str(event.error)
                else:
                    assert event.audio_ns == 101
            streams[0].send(samples(1.0))
            assert (await events_of(streams[0], 1))[0].audio_ns == 102

    run(scenario)


def test_a_failing_session_ends_its_own_stream_only() -> None:
    async def scenario() -> None:
        async with Bench() as bench:
            bad, good = bench.open(), bench.open()
            bad.send(ValueError("bad input"))
            good.send(samples(1.0))
            (event,) = await events_of(bad, 1)
            assert isinstance(event, Failed)
            await events_of(good, 1)
            assert bench.engine.thread.is_alive()

    run(scenario)


def test_a_stream_whose_events_are_not_read_is_parked_until_they_are() -> None:
    async def scenario() -> None:
        async with Bench() as bench:
            slow, other = bench.open(), bench.open()
            slow.send(samples(1.0, 2000))
            await until(lambda: slow.session.processed_samples >= MAX_UNREAD_EVENTS)
            # Other streams continue, and the number of unread events is bounded.
            for _ in range(20):
                other.send(samples(1.0, 10))
                await events_of(other, 10)
            assert slow.session.processed_samples <= MAX_UNREAD_EVENTS + 50
            received = await events_of(slow, 2000)
            assert [one.audio_ns for one in received] == list(range(101, 2101))

    run(scenario)


def test_slow_readers_lose_no_event() -> None:
    async def scenario() -> None:
        async with Bench() as bench:
            streams = [bench.open() for _ in range(8)]

            async def read(stream: Any, total: int) -> AsyncIterator[int]:
                count = 0
                while count < total:
                    for event in await stream.events():
                        count += 1
                        if count % 7 == 0:
                            await asyncio.sleep(0)
                        yield event.audio_ns

            async def check(stream: Any) -> None:
                for _ in range(30):
                    stream.send(samples(1.0, 100))
                received = [number async for number in read(stream, 3000)]
                assert received == list(range(101, 3101))

            await asyncio.gather(*(check(stream) for stream in streams))

    run(scenario)


def test_a_waiting_call_resumes_when_there_is_capacity() -> None:
    async def scenario() -> None:
        async with Bench() as bench:
            await bench.block()
            stream = bench.open(max_pending_s=10)
            for _ in range(3):
                assert not stream.at_capacity
                stream.send(samples(1.0, 5))
            assert stream.at_capacity
            waiting = asyncio.ensure_future(stream.wait_for_capacity())
            await asyncio.sleep(0.05)
            assert not waiting.done()
            bench.model.go.set()
            async with asyncio.timeout(DEADLINE_S):
                await waiting
            assert stream.has_capacity
            # With capacity available, waiting returns at once.
            async with asyncio.timeout(DEADLINE_S):
                await stream.wait_for_capacity()

    run(scenario)


def test_a_closed_stream_is_not_processed_and_its_slot_is_freed() -> None:
    async def scenario() -> None:
        async with Bench() as bench:
            await bench.block()
            stream = bench.open()
            stream.send(samples(1.0, 1000))
            stream.close()
            stream.close()
            bench.model.go.set()
            await until(lambda: bench.engine.counters.open_slots == 1)
            assert stream.session.processed_samples == 0

    run(scenario)


def test_the_heartbeat_grows_with_work_and_is_busy_ends_with_it() -> None:
    async def scenario() -> None:
        async with Bench() as bench:
            await until(lambda: not bench.engine.counters.is_busy)
            before = bench.engine.counters.heartbeat
            await bench.block()
            blocked = bench.engine.counters.heartbeat
            assert blocked > before
            assert bench.engine.counters.is_busy
            waiting = bench.open()
            waiting.send(samples(1.0))
            assert bench.engine.has_due
            assert bench.engine.counters.heartbeat == blocked
            bench.model.go.set()
            await events_of(waiting, 1)
            await until(lambda: not (bench.engine.counters.is_busy or bench.engine.has_due))
            assert bench.engine.counters.heartbeat > blocked

    run(scenario)
