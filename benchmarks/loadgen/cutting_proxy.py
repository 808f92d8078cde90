"""A way to a server whose connections can be cut in the middle of a message."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import random


class Relay:
    """Passes on what comes, both ways, until it is told to cut; on the running event loop.

    Its clients close their connections before it does.
    """

    def __init__(self, address: str, rng: random.Random) -> None:
        self.address = ""
        self._host, _, self._port = address.rpartition(":")
        self._rng = rng
        self._cutting = False
        self._cut = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None] | None] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        self.address = f"{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._serving:
            if task is not None:
                await task

    async def cut(self) -> None:
        """Cut the next connection that something comes over, after a random part of what came."""
        self._cutting = True
        self._cut.clear()
        await self._cut.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._serving.add(asyncio.current_task())
        with contextlib.closing(writer):
            try:
                to_reader, to_writer = await asyncio.open_connection(self._host, int(self._port))
            except OSError:
                return
            with contextlib.closing(to_writer):
                ways = (
                    asyncio.create_task(self._pass_on(reader, to_writer)),
                    asyncio.create_task(self._pass_on(to_reader, writer)),
                )
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                for way in ways:
                    way.cancel()
                await asyncio.wait(ways)

    async def _pass_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(1 << 16):
                if self._cutting and len(data) > 1:
                    self._cutting = False
                    sink.write(data[: self._rng.randrange(1, len(data))])
                    self._cut.set()
                    return
                sink.write(data)
                await sink.drain()
