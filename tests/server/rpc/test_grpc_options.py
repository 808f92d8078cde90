"""Connections that misuse HTTP/2 or vanish, while a stream on another connection continues."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import grpc
import pytest
from earmark.v1 import keyword_spotting_service_pb2 as rpcs
from grpc import StatusCode
from support.deadlines import DEADLINE_S
from support.raw_connection import connected
from support.server_rig import Rig, beside, chunks, collect, config, kinds, pcm, run, serving

from benchmarks.loadgen import http2_frames

if TYPE_CHECKING:
    from pathlib import Path

ENHANCE_YOUR_CALM = 11
CANCELLED = http2_frames.CANCEL.to_bytes(4, "big")


async def wait_for_open_calls(count: int, rig: Rig) -> None:
    await rig.used_slots(count)
    async with asyncio.timeout(DEADLINE_S):
        # No event announces that gRPC is done with the last one.
        while len(rig.server._admission.open_calls) != count:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def test_a_client_that_pings_too_often_is_disconnected(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        limits = {"min_ping_interval_s": 10}
        async with serving(tiny_model_path, **limits) as rig, beside(rig), connected(rig.address) as raw:
            await raw.send(http2_frames.connection_preface())
            await raw.send(http2_frames.frame(http2_frames.PING, 0, 0, bytes(8)) * 10)
            async with asyncio.timeout(DEADLINE_S):
                goaways = [payload async for kind, payload in raw.frames() if kind == http2_frames.GOAWAY]
            _, error = http2_frames.GOAWAY_HEAD.unpack_from(goaways[-1])
            assert error == ENHANCE_YOUR_CALM
            assert b"too_many_pings" in goaways[-1]

    run(scenario)


def test_a_flood_of_pings_is_answered(tiny_model_path: Path) -> None:
    """To close the connection would take gRPC a second of one core for each."""
    count = 20_000

    async def scenario() -> None:
        async with serving(tiny_model_path) as rig, beside(rig), connected(rig.address) as raw:
            await raw.send(http2_frames.connection_preface())
            await raw.send(http2_frames.frame(http2_frames.PING, 0, 0, bytes(8)) * count)
            async with asyncio.timeout(DEADLINE_S):
                received = raw.frames()
                answers = 0
                while answers < count:
                    answers += (await anext(received))[0] == http2_frames.PING

    run(scenario)


def test_a_client_that_pings_as_often_as_allowed_keeps_its_connection(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path, min_ping_interval_s=0.05) as rig, connected(rig.address) as raw:
            await raw.send(http2_frames.connection_preface())
            received = raw.frames()
            for _ in range(10):
                await raw.send(http2_frames.frame(http2_frames.PING, 0, 0, bytes(8)))
                async with asyncio.timeout(DEADLINE_S):
                    while (await anext(received))[0] != http2_frames.PING:
                        pass
                await asyncio.sleep(0.06)

    run(scenario)


@pytest.mark.parametrize("sent", [b"", http2_frames.PREFACE, b"GET / HTTP/1.1\r\n\r\n"])
def test_connections_that_do_not_complete_the_handshake_are_closed(
    tiny_model_path: Path, sent: bytes
) -> None:
    async def scenario() -> None:
        async with (
            serving(tiny_model_path, handshake_timeout_s=0.3) as rig,
            beside(rig),
            contextlib.AsyncExitStack() as stack,
        ):
            silent = [await stack.enter_async_context(connected(rig.address)) for _ in range(50)]
            for raw in silent:
                await raw.send(sent)
            for raw in silent:
                await raw.wait_until_closed()

    run(scenario)


def test_a_flood_of_opened_and_reset_streams_leaves_nothing_behind(tiny_model_path: Path) -> None:
    """CVE-2023-44487."""

    async def scenario() -> None:
        async with serving(tiny_model_path) as rig, beside(rig), connected(rig.address) as raw:
            await raw.send(http2_frames.connection_preface())
            with contextlib.suppress(ConnectionError):
                for first in range(1, 4000, 200):
                    pairs = [
                        raw.open_stream(number) + http2_frames.frame(http2_frames.RESET, 0, number, CANCELLED)
                        for number in range(first, first + 200, 2)
                    ]
                    await raw.send(b"".join(pairs))
            await wait_for_open_calls(1, rig)

    run(scenario)


def test_streams_of_a_vanished_client_end(tiny_model_path: Path) -> None:
    """Its connection stays open, but nobody answers on it."""

    async def scenario() -> None:
        limits = {"keepalive_s": 1, "keepalive_timeout_s": 0.5}
        async with serving(tiny_model_path, **limits) as rig, beside(rig), connected(rig.address) as raw:
            message = http2_frames.prefixed(config().SerializeToString())
            await raw.send(http2_frames.connection_preface())
            for number in (1, 3, 5):
                await raw.send(
                    raw.open_stream(number) + http2_frames.frame(http2_frames.DATA, 0, number, message)
                )
            await rig.used_slots(4)
            await wait_for_open_calls(1, rig)

    run(scenario)


def test_compressed_messages_are_rejected_before_decompression(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path) as rig:
            bomb = rpcs.SpotRequest(audio=bytes(10_000_000))
            for compression in (grpc.Compression.Gzip, grpc.Compression.Deflate):
                call = rig.stub.Spot(bomb, compression=compression, timeout=DEADLINE_S)
                assert await call.code() == StatusCode.UNIMPLEMENTED
            assert kinds(await collect(rig.stream(config(), *chunks(pcm()))))[-1] == "ended"

    run(scenario)


def test_a_stream_may_send_little_before_it_is_read(tiny_model_path: Path) -> None:
    """The server announces its window in its settings; gRPC would let it grow to megabytes."""

    async def scenario() -> None:
        async with serving(tiny_model_path) as rig, connected(rig.address) as raw:
            await raw.send(http2_frames.connection_preface())
            async with asyncio.timeout(DEADLINE_S):
                async for kind, payload in raw.frames():
                    if kind == http2_frames.SETTINGS:
                        announced = dict(http2_frames.SETTING.iter_unpack(payload))
                        assert announced[http2_frames.SET_WINDOW] <= 1 << 20
                        break

    run(scenario)
