"""A raw HTTP/2 connection, for tests of clients that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from benchmarks.loadgen import http2_frames
from benchmarks.loadgen.load_client import METHOD
from support.deadlines import DEADLINE_S

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Raw:
    """A connection that sends any bytes, and answers nothing by itself."""

    def __init__(
        self, address: str, method: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._headers = http2_frames.request_headers(address, method)
        self._reader, self._writer = reader, writer

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    def open_stream(self, number: int) -> bytes:
        """Return the frame that opens a stream."""
        return http2_frames.frame(http2_frames.HEADERS, http2_frames.END_HEADERS, number, self._headers)

    async def frames(self) -> AsyncIterator[tuple[int, bytes]]:
        """Yield the types and payloads of frames until the server closes the connection."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                high, low, kind, _, _ = http2_frames.FRAME_HEAD.unpack(await self._reader.readexactly(9))
                yield kind, await self._reader.readexactly(high << 8 | low)

    async def wait_until_closed(self) -> None:
        """Wait until the server has closed the connection."""
        async with asyncio.timeout(DEADLINE_S):
            async for _ in self.frames():
                pass


@contextlib.asynccontextmanager
async def connected(address: str, method: str = METHOD) -> AsyncIterator[Raw]:
    """Open a connection to a server; its frames are left to the test."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield Raw(address, method, reader, writer)
    finally:
        writer.close()
