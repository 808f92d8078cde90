"""Ends calls whose client does nothing: one timer a call, which costs nothing per message."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from earmark_server.status import CallError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from earmark_server.rpc.call import Call


class Activity:
    """Since when a call waits for its client, on the loop's clock; None while it doesn't."""

    def __init__(self) -> None:
        self.now = asyncio.get_running_loop().time
        self.reading_since: float | None = None
        self.writing_since: float | None = None


@contextlib.contextmanager
def ending_when_idle(call: Call, sending_s: float, reading_s: float) -> Iterator[Activity]:
    """End the call once its client was waited for that long in the block.

    With IDLE_STREAM where it did not send, with SLOW_READER where it did not read.
    """
    activity = Activity()
    timer: asyncio.TimerHandle

    def look() -> None:
        nonlocal timer
        now_s = activity.now()
        reading_left_s = reading_s - (now_s - (activity.writing_since or now_s))
        sending_left_s = sending_s - (now_s - (activity.reading_since or now_s))
        left_s = min(reading_left_s, sending_left_s)
        if left_s > 0:
            timer = loop.call_later(left_s, look)
        elif reading_left_s <= 0:
            call.end(
                CallError(
                    "SLOW_READER",
                    f"The client has read nothing for {reading_s:g} s of what waits for it: read the events "
                    "as they come, also while sending.",
                )
            )
        else:
            call.end(
                CallError(
                    "IDLE_STREAM",
                    f"The client has sent nothing for {sending_s:g} s: send audio, or silence where there is "
                    "none.",
                )
            )

    loop = asyncio.get_running_loop()
    timer = loop.call_later(min(sending_s, reading_s), look)
    try:
        yield activity
    finally:
        timer.cancel()
