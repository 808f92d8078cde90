"""Ends streams on which nothing happens: one timer a stream, which costs nothing per message."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from earmark_server.status import CallError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from earmark_server.calls import Call


class Activity:
    """Since when a stream waits for its client, on the loop's clock; None while it doesn't."""

    def __init__(self) -> None:
        self.now = asyncio.get_running_loop().time
        self.reading_since: float | None = None
        self.writing_since: float | None = None

    @property
    def waiting_s(self) -> float:
        """How long the client has not sent, or has not read, what is waited for."""
        since = [time for time in (self.reading_since, self.writing_since) if time is not None]
        return self.now() - min(since) if since else 0.0


@contextlib.contextmanager
def ending_when_idle(call: Call, limit_s: float) -> Iterator[Activity]:
    """End the call with IDLE_STREAM once its client was waited for that long in the block."""
    activity = Activity()
    timer: asyncio.TimerHandle

    def look() -> None:
        nonlocal timer
        left_s = limit_s - activity.waiting_s
        if left_s > 0:
            timer = loop.call_later(left_s, look)
            return
        what = "sent" if activity.writing_since is None else "read"
        call.end(
            CallError(
                "IDLE_STREAM",
                f"The client has {what} nothing for {limit_s:g} s: send audio, or silence where there is "
                "none, and read the events.",
            )
        )

    loop = asyncio.get_running_loop()
    timer = loop.call_later(limit_s, look)
    try:
        yield activity
    finally:
        timer.cancel()
