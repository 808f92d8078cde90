"""Connections that misuse HTTP/2, or die without a word, and that a stream beside them goes on unhurt."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest
from support.server_rig import DEADLINE_S, Rig, beside, config, run, serving

from benchmarks.loadgen import http2_frames
from benchmarks.loadgen.load_client import METHOD

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

ENHANCE_YOUR_CALM = 11
CANCELLED = http2_frames.CANCEL.to_bytes(4, "big")


class Raw:
    """A connection on which any bytes can be sent, and nothing is answered by itself."""

    def __init__(self, address: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._headers = http2_frames.request_headers(address, METHOD)
        self._reader, self._writer = reader, writer

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    def begin(self, number: int) -> bytes:
        """Make what opens a stream."""
        return http2_frames.frame(http2_frames.HEADERS, http2_frames.END_HEADERS, number, self._headers)

    async def frames(self) -> AsyncIterator[tuple[int, bytes]]:
        """Give types and payloads of what comes, until the server closes the connection."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                high, low, kind, _, _ = http2_frames.FRAME_HEAD.unpack(await self._reader.readexactly(9))
                yield kind, await self._reader.readexactly(high << 8 | low)

    async def is_closed(self) -> None:
        """Wait until the server has closed it."""
        async with asyncio.timeout(DEADLINE_S):
            async for _ in self.frames():
                pass


@contextlib.asynccontextmanager
async def connected(rig: Rig) -> AsyncIterator[Raw]:
    host, _, port = rig.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield Raw(rig.address, reader, writer)
    finally:
        writer.close()


async def no_call_is_open_but(count: int, rig: Rig) -> None:
    await rig.used_slots(count)
    async with asyncio.timeout(DEADLINE_S):
        # Nothing tells when gRPC has given up the last of them.
        while len(rig.server._admission.open_calls) != count:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def test_a_client_that_pings_without_end_is_told_to_calm_down(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path) as rig, beside(rig), connected(rig) as raw:
            await raw.send(http2_frames.connection_preface())
            await raw.send(http2_frames.frame(http2_frames.PING, 0, 0, bytes(8)) * 10)
            async with asyncio.timeout(DEADLINE_S):
                goaways = [payload async for kind, payload in raw.frames() if kind == http2_frames.GOAWAY]
            _, error = http2_frames.GOAWAY_HEAD.unpack_from(goaways[-1])
            assert error == ENHANCE_YOUR_CALM
            assert b"too_many_pings" in goaways[-1]

    run(scenario)


def test_a_client_that_pings_as_often_as_it_may_keeps_its_connection(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path, min_ping_interval_s=0.05) as rig, connected(rig) as raw:
            await raw.send(http2_frames.connection_preface())
            received = raw.frames()
            for _ in range(10):
                await raw.send(http2_frames.frame(http2_frames.PING, 0, 0, bytes(8)))
                async with asyncio.timeout(DEADLINE_S):
                    while (await anext(received))[0] != http2_frames.PING:
                        pass
                await asyncio.sleep(0.06)

    run(scenario)


@pytest.mark.parametrize("said", [b"", http2_frames.PREFACE, b"GET / HTTP/1.1\r\n\r\n"])
def test_connections_that_do_not_begin_are_closed(tiny_model_path: Path, said: bytes) -> None:
    async def scenario() -> None:
        async with (
            serving(tiny_model_path, handshake_timeout_s=0.3) as rig,
            beside(rig),
            contextlib.AsyncExitStack() as stack,
        ):
            silent = [await stack.enter_async_context(connected(rig)) for _ in range(50)]
            for raw in silent:
                await raw.send(said)
            for raw in silent:
                await raw.is_closed()

    run(scenario)


def test_streams_that_are_opened_and_reset_in_a_flood_leave_nothing_behind(tiny_model_path: Path) -> None:
    """CVE-2023-44487."""

    async def scenario() -> None:
        async with serving(tiny_model_path) as rig, beside(rig), connected(rig) as raw:
            await raw.send(http2_frames.connection_preface())
            with contextlib.suppress(ConnectionError):
                for first in range(1, 4000, 200):
                    pairs = [
                        raw.begin(number) + http2_frames.frame(http2_frames.RESET, 0, number, CANCELLED)
                        for number in range(first, first + 200, 2)
                    ]
                    await raw.send(b"".join(pairs))
            await no_call_is_open_but(1, rig)

    run(scenario)


def test_streams_of_a_client_that_vanished_without_a_word_are_ended(tiny_model_path: Path) -> None:
    """Nobody answers any more on its connection, which stays open."""

    async def scenario() -> None:
        limits = {"keepalive_s": 1, "keepalive_timeout_s": 0.5}
        async with serving(tiny_model_path, **limits) as rig, beside(rig), connected(rig) as raw:
            message = http2_frames.prefixed(config().SerializeToString())
            await raw.send(http2_frames.connection_preface())
            for number in (1, 3, 5):
                await raw.send(raw.begin(number) + http2_frames.frame(http2_frames.DATA, 0, number, message))
            await rig.used_slots(4)
            await no_call_is_open_but(1, rig)

    run(scenario)
