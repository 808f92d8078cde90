"""Connections of the Wyoming bridge that are of no use: silent, slow, or with more than a satellite sends."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
import signal
import time
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING
from unittest import mock

import pytest
from earmark_client.client import Client
from support.deadlines import DEADLINE_S
from support.server_process import ServerProcess

pytest.importorskip("wyoming")

from earmark_wyoming import bridge, satellite

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

DESCRIBE = b'{"type": "describe"}\n'
MEGABYTE = 1 << 20
CHUNK = (
    json.dumps(
        {
            "type": "audio-chunk",
            "data": {"rate": 16_000, "width": 2, "channels": 1},
            "payload_length": MEGABYTE,
        }
    ).encode()
    + b"\n"
    + bytes(MEGABYTE)
)


class Served:
    """A bridge in this process, and the connections to it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._writers: list[asyncio.StreamWriter] = []

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers.append(writer)
        return reader, writer

    async def disconnect(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
            with suppress(ConnectionError):
                await writer.wait_closed()


@asynccontextmanager
async def served(address: str, max_connections: int = 10) -> AsyncIterator[Served]:
    lines: asyncio.Queue[str] = asyncio.Queue()
    options = bridge.BridgeOptions(
        uri="tcp://127.0.0.1:0",
        zeroconf=None,
        settings=(),
        models=(),
        threshold=None,
        max_connections=max_connections,
        report=lines.put_nowait,
    )
    async with Client(address) as client:
        running = bridge._Bridge(client, options)
        task = asyncio.create_task(running.run())
        async with asyncio.timeout(DEADLINE_S):
            while (found := re.search(r"serving satellites at port (\d+)", await lines.get())) is None:
                pass
        connections = Served(int(found[1]))
        try:
            yield connections
        finally:
            await connections.disconnect()
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


def test_silent_connections_make_room(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge, "_SILENT_S", 0.2)

    async def scenario() -> None:
        async with served(address, max_connections=2) as running, asyncio.timeout(DEADLINE_S):
            silent = [await running.connect() for _ in range(2)]
            await asyncio.sleep(0.3)
            reader, writer = await running.connect()
            writer.write(DESCRIBE)
            assert b"info" in await reader.readline()
            assert await silent[0][0].read() == b""

    asyncio.run(scenario())


@pytest.mark.slow
def test_a_connection_that_never_reads_is_closed_too(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge, "_SILENT_S", 0.2)
    monkeypatch.setattr(satellite, "_CLOSE_TIMEOUT_S", 0.2)

    async def scenario() -> None:
        async with served(address, max_connections=1) as running, asyncio.timeout(DEADLINE_S):
            unread, writer = await running.connect()
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(DESCRIBE * 4_000)
            answer = b""
            while not answer:  # until the bridge waits for the connection
                reader, writer = await running.connect()
                writer.write(DESCRIBE)
                with suppress(ConnectionError):
                    answer = await reader.readline()
            await asyncio.sleep(0.5)
            unread._transport.resume_reading()  # type: ignore[attr-defined]
            with suppress(ConnectionError):
                await unread.read()

    asyncio.run(scenario())


@pytest.mark.slow
def test_one_satellite_with_many_events_does_not_delay_the_others(address: str) -> None:
    async def scenario() -> None:
        async with served(address) as running, asyncio.timeout(DEADLINE_S):
            busy_reader, busy = await running.connect()
            busy.write(DESCRIBE * 2_000)
            reading = asyncio.create_task(busy_reader.read(-1))
            reader, writer = await running.connect()
            writer.write(DESCRIBE)
            await reader.readline()
            assert not reading.done()
            busy.write_eof()
            assert (await reading).count(b'"type": "info"') == 2_000

    asyncio.run(scenario())


def test_a_satellite_that_begins_stream_after_stream_is_slowed_down(address: str) -> None:
    start = b'{"type": "audio-start", "data": {"rate": 16000, "width": 2, "channels": 1}}\n'

    async def scenario() -> None:
        async with served(address) as running, asyncio.timeout(DEADLINE_S):
            reader, writer = await running.connect()
            begin_s = time.monotonic()
            writer.write(start * 7 + b'{"type": "ping"}\n')
            assert b"pong" in await reader.readline()
            assert time.monotonic() - begin_s > 1.9

    asyncio.run(scenario())


def test_the_rest_of_an_event_has_to_follow(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(satellite, "_EVENT_TIMEOUT_S", 0.2)

    async def scenario() -> None:
        async with served(address) as running, asyncio.timeout(DEADLINE_S):
            reader, writer = await running.connect()
            writer.write(CHUNK[:-1])
            assert await reader.read() == b""

    asyncio.run(scenario())


def test_a_satellite_that_loses_power_ends_without_a_message(address: str) -> None:
    """Its connection ends with EHOSTUNREACH, which is no ConnectionError, for readers and writers alike."""

    async def scenario() -> list[str]:
        lost = OSError(errno.EHOSTUNREACH, os.strerror(errno.EHOSTUNREACH))
        reader, writer = asyncio.StreamReader(), mock.Mock()
        writer.drain = writer.wait_closed = mock.AsyncMock(side_effect=lost)
        lines: list[str] = []
        async with Client(address) as client:
            one = satellite.Satellite(client, list, reader, writer, lines.append)
            reader.feed_data(DESCRIBE)  # its answer cannot be written
            await one.run()
            one = satellite.Satellite(client, list, reader, writer, lines.append)
            reader.set_exception(lost)
            await one.run()
        return lines

    assert asyncio.run(scenario()) == []


@pytest.mark.slow
def test_audio_that_a_stalled_server_does_not_accept_fills_no_memory(tiny_model_path: Path) -> None:
    async def scenario(server: ServerProcess) -> None:
        async with served(f"127.0.0.1:{server.wait_until_serving()}") as running:
            _, writer = await running.connect()
            writer.write(CHUNK)
            await asyncio.sleep(0.5)
            os.kill(server.process.pid, signal.SIGSTOP)
            sent = 0
            try:
                with suppress(TimeoutError):
                    while sent < 64:
                        writer.write(CHUNK)
                        await asyncio.wait_for(writer.drain(), 2)
                        sent += 1
            finally:
                os.kill(server.process.pid, signal.SIGCONT)
            # Beside the bridge's own, the buffers of the client, of HTTP/2 and of the sockets.
            assert sent < 32
            writer.transport.abort()

    with ServerProcess("--port=0", f"--model={tiny_model_path}", "--log-format=json") as server:
        asyncio.run(scenario(server))


def test_lines_about_satellites_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 10.0
    monkeypatch.setattr("earmark_audio.line_sampler.time.monotonic", lambda: now_s)
    lines: list[str] = []
    running = bridge._Bridge(mock.Mock(), mock.Mock(report=lines.append))
    for number in range(100):
        running._report("127.0.0.1", str(number))
    assert lines == [f"127.0.0.1: {number}" for number in range(20)]
    now_s = 11.0
    running._report("127.0.0.1", "later")
    assert lines[-1] == "127.0.0.1: later (80 lines before this one were suppressed)"
