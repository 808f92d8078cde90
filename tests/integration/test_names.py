"""A host name with several addresses: some are dead, or calls are distributed over them."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import TYPE_CHECKING

import pytest
from earmark_client import Client, Health, Progress, Resumed, SyncClient
from support.deadlines import Deadline, wait_until
from support.name_server import Name, dead_address
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
from support.ports import free_port
from support.restartable_server import RestartableServer

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8")

both = pytest.mark.parametrize("flavour", ["async", "sync"])
any_policy = pytest.mark.parametrize("round_robin", [False, True], ids=["first", "round robin"])


@pytest.mark.slow
@both
@any_policy
@pytest.mark.parametrize("dead", ["silent", "refusing"])
def test_a_dead_address_does_not_delay_a_client(
    flavour: str, round_robin: bool, dead: str, tiny_model_path: Path
) -> None:
    """The client connects within its connect timeout: a call with a deadline succeeds."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(RestartableServer(tiny_model_path))
        if dead == "silent":
            stack.enter_context(dead_address("127.0.0.2", server.port))
        name = stack.enter_context(Name(["127.0.0.2", "127.0.0.3", "127.0.0.1"], server.port))
        with SyncClient(name.target, connect_timeout_s=20, round_robin=round_robin) as client:
            assert client.health() is Health.SERVING
        stream = Stream([bytes(3200)] * 5)
        run(flavour, name.target, [stream], round_robin=round_robin)
        assert not stream.of(Resumed)


async def connect_to_all(client: Client, servers: list[RestartableServer]) -> None:
    """Calls are distributed over connected addresses only, and at first there may be one."""
    deadline, calls = Deadline("calls at every server"), 0
    while not all(server.ended_calls() for server in servers):
        deadline.wait()
        async for _ in client.stream([bytes(3200)], sample_rate_hz=RATE_HZ):
            pass
        calls += 1
    # The log is read a little later: no line about these calls may come among those of the next ones.
    wait_until(lambda: sum(server.ended_calls() for server in servers) == calls, "ends of these calls")


@pytest.mark.slow
def test_streams_are_spread_evenly_over_all_addresses(tiny_model_path: Path) -> None:
    hosts, port, count = ["127.0.0.1", "127.0.0.2", "127.0.0.3"], free_port(), 30

    async def play(target: str, servers: list[RestartableServer]) -> list[int]:
        async with Client(target, round_robin=True) as client:
            await connect_to_all(client, servers)
            before = [server.ended_calls() for server in servers]
            await run_on(client, [Stream([bytes(3200)]) for _ in range(count)], sample_rate_hz=RATE_HZ)
            wait_until(
                lambda: sum(server.ended_calls() for server in servers) == sum(before) + count,
                "ends of all calls",
            )
            return [server.ended_calls() - one for server, one in zip(servers, before, strict=True)]

    with contextlib.ExitStack() as stack:
        servers = [
            stack.enter_context(RestartableServer(tiny_model_path, host=host, port=port)) for host in hosts
        ]
        name = stack.enter_context(Name(hosts, port))
        shares = asyncio.run(play(name.target, servers))
    assert all(abs(share - count / 3) <= 0.2 * count / 3 for share in shares), shares


@pytest.mark.slow
def test_added_killed_and_drained_servers_of_one_name_lose_no_detection() -> None:
    chunks, port = demo(), free_port()
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(RestartableServer(host=f"127.0.0.{i}", port=port)) for i in (1, 2, 3)]
        killed, drained, other = servers
        added = stack.enter_context(RestartableServer(host="127.0.0.4", port=port))
        name = stack.enter_context(Name(["127.0.0.1", "127.0.0.2", "127.0.0.3"], port))
        expected = run_undisturbed(other.address, chunks)
        other.wait_for("call ended")
        streams = [PausedStream(chunks, speed=8.0) for _ in range(9)]

        def change() -> None:
            wait_until(
                lambda: all(len(stream.of(Progress)) > 3 for stream in streams),
                "progress of all streams",
            )
            name.addresses.append("127.0.0.4")
            killed.kill()
            wait_until(
                lambda: sum(bool(stream.of(Resumed)) for stream in streams) == 3,
                "streams of the killed server that resumed",
            )
            # A stream may move to either of the two; in the end only the added server remains.
            for server in (drained, other):
                server.drain()
                assert server.wait() == 0
            for stream in streams:
                stream.may_end.set()

        async def play() -> None:
            async with Client(name.target, round_robin=True) as client:
                await connect_to_all(client, servers)
                changer = run_in_background(change)
                await run_on(client, streams, sample_rate_hz=RATE_HZ)
                changer.result()

        asyncio.run(play())
        assert added.ended_calls() == len(streams)
    for stream in streams:
        assert_same_events(stream, expected)
