"""Turns: how many calls may do something at a time, in total and of one client; others wait."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from typing import TYPE_CHECKING

from earmark_server.status import CallError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


class Turns:
    """A semaphore of which one client can have a part only, so that the others need not wait for it."""

    def __init__(self, limit: int, limit_per_client: int, timeout_s: float) -> None:
        """`timeout_s`: a call that has waited this long for its turn is rejected."""
        self._limit_per_client = limit_per_client
        self._timeout_s = timeout_s
        self._turns = asyncio.Semaphore(limit)
        self._turns_by_quota_key: dict[str, asyncio.Semaphore] = {}
        self._users: Counter[str] = Counter()

    @contextlib.asynccontextmanager
    async def turn(self, quota_key: str) -> AsyncIterator[None]:
        """Wait for the turn of a client's call, which lasts until the end of the block.

        Raises CallError (OVERLOADED) if it does not come in time.
        """
        with self._turns_of(quota_key) as own_turns:
            # Not by an AsyncExitStack: its frame would keep an exception, and with it the call's recording.
            taken: list[asyncio.Semaphore] = []
            try:
                try:
                    async with asyncio.timeout(self._timeout_s):
                        for turns in (own_turns, self._turns):
                            await turns.acquire()
                            taken.append(turns)
                except TimeoutError:
                    raise CallError(
                        "OVERLOADED",
                        "The limit on requests that are processed at a time, or on those of this client, is "
                        "reached. Try again later.",
                    ) from None
                yield
            finally:
                for turns in taken:
                    turns.release()

    @contextlib.contextmanager
    def _turns_of(self, quota_key: str) -> Iterator[asyncio.Semaphore]:
        turns = self._turns_by_quota_key.get(quota_key)
        if turns is None:
            turns = self._turns_by_quota_key[quota_key] = asyncio.Semaphore(self._limit_per_client)
        self._users[quota_key] += 1
        try:
            yield turns
        finally:
            self._users[quota_key] -= 1
            if not self._users[quota_key]:
                del self._users[quota_key], self._turns_by_quota_key[quota_key]
