"""A TCP proxy in front of a server that can cut a connection in the middle of a message."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import random


class CuttingProxy:
    """Forwards bytes in both directions, on the running event loop, until `cut` is called.

    Its clients must close their connections before it is closed.
    """

    def __init__(self, server_address: str, rng: random.Random) -> None:
        self.address = ""
        self._host, _, self._port = server_address.rpartition(":")
        self._rng = rng
        self._cut_pending = False
        self._cut_done = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None] | None] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        self.address = f"{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            if task is not None:
                await task

    async def cut(self) -> None:
        """Cut the next connection that carries data: forward a random part of the data, then close it."""
        self._cut_pending = True
        self._cut_done.clear()
        await self._cut_done.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.add(asyncio.current_task())
        with contextlib.closing(writer):
            try:
                server_reader, server_writer = await asyncio.open_connection(self._host, int(self._port))
            except OSError:
                return
            with contextlib.closing(server_writer):
                directions = (
                    asyncio.create_task(self._forward(reader, server_writer)),
                    asyncio.create_task(self._forward(server_reader, writer)),
                )
                await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
                for direction in directions:
                    direction.cancel()
                await asyncio.wait(directions)

    async def _forward(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(1 << 16):
                if self._cut_pending and len(data) > 1:
                    self._cut_pending = False
                    sink.write(data[: self._rng.randrange(1, len(data))])
                    self._cut_done.set()
                    return
                sink.write(data)
                await sink.drain()
