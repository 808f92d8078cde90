"""Ends streams on which nothing happens: one timer a stream, which costs nothing per message."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from earmark_server.status import CallError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Activity:
    """Since when a stream waits for its client; on the loop's clock, None while it doesn't."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.now = loop.time
        self.reading_since: float | None = None
        self.writing_since: float | None = None

    @property
    def waiting_s(self) -> float:
        """How long the client has neither sent what is waited for, or not read what is written."""
        since = [time for time in (self.reading_since, self.writing_since) if time is not None]
        return self.now() - min(since) if since else 0.0


@contextlib.asynccontextmanager
async def ending_when_idle(limit_s: float) -> AsyncIterator[Activity]:
    """Raise CallError (IDLE_STREAM) in the block once its client was waited for that long."""
    loop = asyncio.get_running_loop()
    activity = Activity(loop)

    timer: asyncio.TimerHandle

    def look() -> None:
        nonlocal timer
        left_s = limit_s - activity.waiting_s
        if left_s <= 0:
            guard.reschedule(loop.time())
        else:
            timer = loop.call_later(left_s, look)

    timer = loop.call_later(limit_s, look)
    guard = asyncio.timeout(None)
    try:
        async with guard:
            yield activity
    except TimeoutError:
        if not guard.expired():
            raise
        what = "read" if activity.writing_since is not None else "sent"
        raise CallError(
            "IDLE_STREAM",
            f"The client has {what} nothing for {limit_s:g} s: send audio, or silence where there is none, "
            "and read the events.",
        ) from None
    finally:
        timer.cancel()
