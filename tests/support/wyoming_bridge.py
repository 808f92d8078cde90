"""A running `earmark wyoming`, and what a client of the package `wyoming` asks it."""

from __future__ import annotations

import asyncio
import re
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from wyoming.client import AsyncClient, AsyncTcpClient
from wyoming.info import Describe, Info

from support.deadlines import DEADLINE_S
from support.earmark_command import running
from support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator


class Bridge:
    """A running bridge: its port, and its lines on standard error."""

    def __init__(self, process: Any) -> None:
        self.process = process
        self.lines: list[str] = []
        self._changed = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self.process.stderr:
            with self._changed:
                self.lines.append(line.decode())
                self._changed.notify_all()

    def until(self, pattern: str) -> str:
        with self._changed:
            assert self._changed.wait_for(
                lambda: any(re.search(pattern, line) for line in self.lines), DEADLINE_S
            ), self.lines
            return next(line for line in self.lines if re.search(pattern, line))


@contextmanager
def bridge(address: str, *options: str) -> Iterator[tuple[int, Bridge]]:
    port = free_port()
    uri = f"tcp://127.0.0.1:{port}"
    with running("wyoming", "--server", address, "--uri", uri, *options) as process:
        yield port, Bridge(process)


async def read(client: AsyncClient, kind: Any) -> Any:
    """Return the next event, which must be of this kind."""
    async with asyncio.timeout(DEADLINE_S):
        event = await client.read_event()
    assert event is not None
    assert kind.is_type(event.type), event
    return kind.from_event(event)


async def describe(port: int) -> Info:
    """Ask a bridge for its wake words."""
    async with AsyncTcpClient("127.0.0.1", port) as client:
        await client.write_event(Describe().event())
        return await read(client, Info)
