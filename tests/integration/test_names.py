"""A name with several addresses: of which some are dead, or which get their calls in turn."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import TYPE_CHECKING

import pytest
from earmark_client import Client, Health, Progress, Resumed, SyncClient
from support.fault_injection import Server, eventually
from support.name_server import Name, dead_address
from support.observed_streams import (
    RATE_HZ,
    HeldBack,
    Stream,
    assert_unbroken,
    demo,
    in_the_background,
    run,
    run_on,
    undisturbed,
)
from support.ports import free_port

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8")

both = pytest.mark.parametrize("flavour", ["async", "sync"])
any_policy = pytest.mark.parametrize("round_robin", [False, True], ids=["first", "round robin"])


@both
@any_policy
@pytest.mark.parametrize("dead", ["silent", "refusing"])
def test_a_dead_address_does_not_keep_a_client_from_the_living_one(
    flavour: str, round_robin: bool, dead: str, tiny_model_path: Path
) -> None:
    """It gets through within its connect timeout, which a call with a deadline shows by its success."""
    with contextlib.ExitStack() as held:
        server = held.enter_context(Server(tiny_model_path))
        if dead == "silent":
            held.enter_context(dead_address("127.0.0.2", server.port))
        name = held.enter_context(Name(["127.0.0.2", "127.0.0.3", "127.0.0.1"], server.port))
        with SyncClient(name.target, connect_timeout_s=20, round_robin=round_robin) as client:
            assert client.health() is Health.SERVING
        stream = Stream([bytes(3200)] * 5)
        run(flavour, name.target, [stream], round_robin=round_robin)
        assert not stream.of(Resumed)


async def connect_to_all(client: Client, servers: list[Server]) -> None:
    """Only those that are connected get calls in turn, and at first that may be one."""
    with eventually("connections to all") as waiting:
        while waiting(all(server.ended_calls() for server in servers)):
            async for _ in client.stream([bytes(3200)], sample_rate_hz=RATE_HZ):
                pass


def test_streams_are_spread_evenly_over_all_addresses(tiny_model_path: Path) -> None:
    hosts, port, count = ["127.0.0.1", "127.0.0.2", "127.0.0.3"], free_port(), 30

    async def play(target: str, servers: list[Server]) -> list[int]:
        async with Client(target, round_robin=True) as client:
            await connect_to_all(client, servers)
            before = [server.ended_calls() for server in servers]
            await run_on(client, [Stream([bytes(3200)]) for _ in range(count)], sample_rate_hz=RATE_HZ)
            with eventually("the ends") as waiting:
                while waiting(sum(server.ended_calls() for server in servers) == sum(before) + count):
                    pass
            return [server.ended_calls() - one for server, one in zip(servers, before, strict=True)]

    with contextlib.ExitStack() as held:
        servers = [held.enter_context(Server(tiny_model_path, host=host, port=port)) for host in hosts]
        name = held.enter_context(Name(hosts, port))
        shares = asyncio.run(play(name.target, servers))
    assert all(abs(share - count / 3) <= 0.2 * count / 3 for share in shares), shares


def test_one_server_is_added_one_is_killed_the_others_are_drained_and_no_detection_is_lost() -> None:
    chunks, port = demo(), free_port()
    with contextlib.ExitStack() as held:
        servers = [held.enter_context(Server(host=f"127.0.0.{i}", port=port)) for i in (1, 2, 3)]
        killed, drained, other = servers
        added = held.enter_context(Server(host="127.0.0.4", port=port))
        name = held.enter_context(Name(["127.0.0.1", "127.0.0.2", "127.0.0.3"], port))
        expected = undisturbed(other.address, chunks)
        other.wait_for("call ended")
        streams = [HeldBack(chunks, speed=8.0) for _ in range(9)]

        def change() -> None:
            with eventually("progress") as waiting:
                while waiting(all(len(stream.of(Progress)) > 3 for stream in streams)):
                    pass
            name.addresses.append("127.0.0.4")
            killed.kill()
            with eventually("the killed one's streams to go on") as waiting:
                while waiting(sum(bool(stream.of(Resumed)) for stream in streams) == 3):
                    pass
            # Whichever of the two a stream moves to: in the end there is only the one that was added.
            for server in (drained, other):
                server.drain()
                assert server.wait() == 0
            for stream in streams:
                stream.may_end.set()

        async def play() -> None:
            async with Client(name.target, round_robin=True) as client:
                await connect_to_all(client, servers)
                changer = in_the_background(change)
                await run_on(client, streams, sample_rate_hz=RATE_HZ)
                changer.result()

        asyncio.run(play())
        assert added.ended_calls() == len(streams)
    for stream in streams:
        assert_unbroken(stream, expected)
