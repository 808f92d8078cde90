"""Streams survive their connections and servers: no detection is lost, repeated or moved.

Real servers as processes, which are killed, frozen, drained and replaced, and real connections, which
are cut. What a stream then gives must equal what an undisturbed one gave.
"""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import pytest
from earmark_client import (
    Detection,
    Progress,
    Reconnecting,
    Resumed,
    Silence,
)
from support.cutting_proxy import CuttingProxy, Direction
from support.deadlines import wait_until
from support.observed_streams import (
    PausedStream,
    Stream,
    assert_same_events,
    demo,
    run,
    run_in_background,
    run_undisturbed,
)
from support.restartable_server import RestartableServer

if TYPE_CHECKING:
    from earmark_client import Chunk, Event

both = pytest.mark.parametrize("flavour", ["async", "sync"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flavour", "speed"), [("async", None), ("sync", 12.0), ("async", 12.0), ("sync", None)]
)
def test_servers_are_killed_and_restarted_at_random_moments(flavour: str, speed: float | None) -> None:
    rng = random.Random(f"{flavour} {speed}")
    chunks = demo(loops=2)
    with RestartableServer() as server:
        expected = run_undisturbed(server.address, chunks, score_interval_s=0.1)
        # Held back: at full speed the streams would end before the first kill.
        streams = [PausedStream(chunks, speed) for _ in range(4)]
        total = len(streams) * len(expected.events)
        moments = sorted(rng.randrange(len(streams), total * 9 // 10) for _ in range(3))

        def events_reach(count: int) -> bool:
            return all(stream.events for stream in streams) and (
                sum(len(stream.events) for stream in streams) >= count
            )

        def sabotage() -> None:
            for moment in moments:
                wait_until(partial(events_reach, moment), f"{moment} events")
                server.kill()
                server.start()
            for stream in streams:
                stream.may_end.set()

        saboteur = run_in_background(sabotage)
        run(flavour, server.address, streams, score_interval_s=0.1)
        saboteur.result()
    for stream in streams:
        assert_same_events(stream, expected)
        assert stream.of(Resumed)


@pytest.mark.slow
@pytest.mark.parametrize(("flavour", "times"), [("async", 3), ("async", 10), ("sync", 10)])
def test_connections_are_cut_in_the_middle_of_messages(flavour: str, times: int) -> None:
    """Of each of four streams `times` connections or more are cut, at any byte of a request or a response."""
    chunks = demo()
    with RestartableServer() as server:
        expected = run_undisturbed(server.address, chunks, score_interval_s=0.1)

        def stream_until_cut(seed: int) -> None:
            rng = random.Random(f"{flavour} {seed}")
            cut_count = 0

            def cut() -> tuple[Direction, int]:
                # The first connection is cut only after a stream has started.
                least = 5000 if proxy.connections == 1 else 1
                if rng.random() < 0.5:
                    return Direction.RESPONSES, rng.randrange(least, 20_000)
                return Direction.REQUESTS, rng.randrange(least, 300_000)

            while cut_count < times:
                with CuttingProxy(server.port, cut) as proxy:
                    stream = Stream(chunks)
                    run(flavour, proxy.address, [stream], score_interval_s=0.1)
                    assert_same_events(stream, expected)
                    cut_count += proxy.cut_count

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(stream_until_cut, range(4)))


@both
def test_a_stream_that_breaks_before_its_first_progress_starts_over(flavour: str) -> None:
    chunks = demo()
    with RestartableServer() as server, CuttingProxy(server.port) as proxy:
        expected = run_undisturbed(server.address, chunks, progress_interval_s=10.0)
        stream = Stream(chunks, speed=10.0)

        def cut_after_a_detection(event: Event) -> None:
            if isinstance(event, Detection) and not stream.of(Reconnecting):
                proxy.cut()

        stream.on_event = cut_after_a_detection
        run(flavour, proxy.address, [stream], progress_interval_s=10.0)
    assert_same_events(stream, expected)
    kinds = [type(event) for event in stream.events]
    assert kinds.index(Resumed) < kinds.index(Progress)


@pytest.mark.slow
@both
def test_a_stream_that_breaks_after_its_last_audio_still_ends(flavour: str) -> None:
    """The server has processed all audio, but the client never received the last events."""
    chunks = demo()
    with RestartableServer() as server, CuttingProxy(server.port) as proxy:
        expected = run_undisturbed(server.address, chunks)
        server.wait_for("call ended")
        stream = PausedStream(chunks)
        last = expected.of(Progress)[-1].decided_s

        def swallow(event: Event) -> None:
            # Permanently: a connection does not lose bytes and then continue.
            if isinstance(event, Progress) and event.decided_s == last:
                proxy.drops_responses = True
                stream.may_end.set()

        def cut() -> None:
            assert server.wait_for("call ended")["status"] == "OK"
            stream.on_event = lambda _: None
            proxy.drops_responses = False
            proxy.cut()

        stream.on_event = swallow
        cutter = run_in_background(cut)
        run(flavour, proxy.address, [stream])
        cutter.result()
    assert_same_events(stream, expected)
    assert len(stream.of(Resumed)) == 1


@pytest.mark.slow
@both
def test_pauses_are_replayed_too(flavour: str) -> None:
    rng = random.Random(flavour)
    speech = demo()
    chunks: list[Chunk] = []
    for i in range(0, len(speech), 20):
        chunks += [*speech[i : i + 20], Silence(rng.uniform(0, 6)), Silence(0.0)]
    with RestartableServer() as server:
        expected = run_undisturbed(server.address, chunks)

        def cut() -> tuple[Direction, int]:
            return Direction.RESPONSES, rng.randrange(3000 if proxy.connections == 1 else 1000, 9000)

        with CuttingProxy(server.port, cut) as proxy:
            stream = Stream(chunks)
            run(flavour, proxy.address, [stream])
            assert proxy.cut_count
    assert_same_events(stream, expected)


@pytest.mark.slow
@pytest.mark.parametrize("flavour", ["sync", "async"])
def test_streams_move_from_a_draining_server_to_its_successor(flavour: str) -> None:
    """SIGTERM while streams are open: they move, and the server exits long before the grace period ends."""
    chunks = demo()
    with RestartableServer() as old, RestartableServer() as new, CuttingProxy(old.port) as name:
        expected = run_undisturbed(old.address, chunks)
        streams = [Stream(chunks, speed=6.0) for _ in range(4)]

        def roll() -> None:
            wait_until(
                lambda: all(len(stream.of(Progress)) > 4 for stream in streams),
                "progress of all streams",
            )
            name.target_port = new.port
            old.drain()
            assert old.wait() == 0
            for _ in streams:
                assert new.wait_for("call ended")["status"] == "OK"

        roller = run_in_background(roll)
        run(flavour, name.address, streams)
        roller.result()
    for stream in streams:
        assert_same_events(stream, expected)
        (left,) = stream.of(Reconnecting)
        assert isinstance(left, Reconnecting)
        assert left.delay_s == 0
    # One new connection for all of them.
    assert name.connections == 2


@pytest.mark.slow
def test_streams_move_from_a_draining_server_to_the_next_address() -> None:
    chunks = demo()
    with RestartableServer() as first, RestartableServer() as second:
        expected = run_undisturbed(second.address, chunks)
        stream = Stream(chunks, speed=6.0)

        def drain(event: Event) -> None:
            if isinstance(event, Detection) and len(stream.of(Detection)) == 3:
                first.drain()

        stream.on_event = drain
        run("async", f"ipv4:{first.address},{second.address}", [stream])
        assert first.wait() == 0
    assert_same_events(stream, expected)


@pytest.mark.slow
def test_streams_of_a_frozen_server_resume_on_another() -> None:
    """The client detects it within 20 s, by its keepalive."""
    chunks = demo()
    with RestartableServer() as frozen, RestartableServer() as other, CuttingProxy(frozen.port) as name:
        expected = run_undisturbed(other.address, chunks)
        stream = Stream(chunks, speed=8.0)

        def freeze(event: Event) -> None:
            if isinstance(event, Detection) and len(stream.of(Detection)) == 3:
                name.target_port = other.port
                frozen.freeze()

        stream.on_event = freeze
        run("sync", name.address, [stream])
    assert_same_events(stream, expected)
    assert len(stream.of(Resumed)) == 1
