"""One way to use either client, so that each test of behaviour runs with both."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from earmark_client import Client, SyncClient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from earmark_client import Chunk, Event

    Security = dict[str, Any] | None
    """The settings of the client: tls and token."""
    Stop = Callable[[Event], bool]


class AsyncDriver:
    """Uses `Client`."""

    def events(
        self, address: str, chunks: Iterable[Chunk], *, security: Security = None, **settings: Any
    ) -> list[Event]:
        """Return all events of a stream."""

        async def run() -> list[Event]:
            async with Client(address, **(security or {})) as client:
                return [event async for event in client.stream(chunks, **settings)]

        return asyncio.run(run())

    def call(self, address: str, method: str, *args: Any, security: Security = None, **settings: Any) -> Any:
        """Return the result of a unary method."""

        async def run() -> Any:
            async with Client(address, **(security or {})) as client:
                return await getattr(client, method)(*args, **settings)

        return asyncio.run(run())

    def until(
        self,
        address: str,
        chunks: Iterable[Chunk],
        stop: Callable[[Event], bool],
        *,
        security: Security = None,
        **settings: Any,
    ) -> None:
        """Stream until an event, then close the stream."""

        async def run() -> None:
            async with Client(address, **(security or {})) as client:
                async for event in client.stream(chunks, **settings):
                    if stop(event):
                        break

        asyncio.run(run())


class SyncDriver:
    """Uses `SyncClient`."""

    def events(
        self, address: str, chunks: Iterable[Chunk], *, security: Security = None, **settings: Any
    ) -> list[Event]:
        """Return all events of a stream."""
        with SyncClient(address, **(security or {})) as client:
            return list(client.stream(chunks, **settings))

    def call(self, address: str, method: str, *args: Any, security: Security = None, **settings: Any) -> Any:
        """Return the result of a unary method."""
        with SyncClient(address, **(security or {})) as client:
            return getattr(client, method)(*args, **settings)

    def until(
        self,
        address: str,
        chunks: Iterable[Chunk],
        stop: Callable[[Event], bool],
        *,
        security: Security = None,
        **settings: Any,
    ) -> None:
        """Stream until an event, then close the stream."""
        with SyncClient(address, **(security or {})) as client:
            for event in client.stream(chunks, **settings):
                if stop(event):
                    break


DRIVERS = [AsyncDriver(), SyncDriver()]
Driver = AsyncDriver | SyncDriver
