"""Streams that outlive their connections: they move, and no detection is lost or repeated."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from earmark_client import Client, Ended, Reconnecting
from support.cutting_proxy import BalancingProxy
from support.deadlines import wait_until
from support.observed_streams import (
    RATE_HZ,
    PausedStream,
    Stream,
    assert_same_events,
    demo,
    run,
    run_in_background,
    run_on,
    run_undisturbed,
)
from support.restartable_server import RestartableServer

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.slow
@pytest.mark.parametrize("flavour", ["sync", "async"])
def test_a_stream_of_several_ages_moves_from_server_to_server_and_back(flavour: str) -> None:
    chunks = demo()
    with (
        RestartableServer(None, "--max-connection-age-s=1") as one,
        RestartableServer(None, "--max-connection-age-s=1") as other,
        BalancingProxy(one.port, other.port) as balancer,
    ):
        expected = run_undisturbed(one.address, chunks)
        one.wait_for("call ended")
        streams = [Stream(chunks, speed=5.0) for _ in range(3)]
        run(flavour, balancer.address, streams)
        calls = one.ended_calls() + other.ended_calls()
    for stream in streams:
        assert_same_events(stream, expected)
        moves = stream.of(Reconnecting)
        assert len(moves) >= 3
        # Its connection was never cut: the server announced the move in time.
        causes = {move.cause for move in moves if isinstance(move, Reconnecting)}
        assert causes == {"the server asked the stream to reconnect"}
        assert isinstance(moves[0], Reconnecting)
        assert moves[0].delay_s == 0
    # Streams of one client move together, to one new connection.
    most = max(len(stream.of(Reconnecting)) for stream in streams)
    assert balancer.connections <= most + 2
    assert calls >= most


@pytest.mark.slow
def test_streams_spread_over_a_server_that_was_added(tiny_model_path: Path) -> None:
    """Five clients with one stream each, all on the only server."""
    age = "--max-connection-age-s=1"
    with (
        RestartableServer(tiny_model_path, age) as first,
        RestartableServer(tiny_model_path, age) as added,
        BalancingProxy(first.port) as balancer,
    ):
        streams = [PausedStream([bytes(3200)] * 10) for _ in range(5)]

        def add() -> None:
            wait_until(lambda: balancer.connections >= 5, "connections of all clients")
            assert not added.ended_calls()
            balancer.ports.append(added.port)
            # Each new connection uses the next server, so at least two of the five move.
            wait_until(lambda: added.ended_calls() >= 2, "ended calls at the added server")
            for stream in streams:
                stream.may_end.set()

        async def one(stream: Stream) -> None:
            async with Client(balancer.address) as client:
                await run_on(client, [stream], sample_rate_hz=RATE_HZ)

        async def all_of_them() -> None:
            adding = run_in_background(add)
            await asyncio.gather(*map(one, streams))
            adding.result()

        asyncio.run(all_of_them())
    for stream in streams:
        assert stream.of(Ended) == [Ended(audio_s=1.0, detections=0)]
