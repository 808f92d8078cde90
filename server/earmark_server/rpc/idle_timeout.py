"""Ends a call whose client neither sends nor reads. It needs one timer per call, and no work per message."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from earmark_server.status import CallError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from earmark_server.rpc.call import Call


class Activity:
    """The times since which a call waits for its client, on the loop's clock; None while it does not wait."""

    def __init__(self) -> None:
        self.now = asyncio.get_running_loop().time
        self.reading_since: float | None = None
        self.writing_since: float | None = None


@contextlib.contextmanager
def end_when_idle(call: Call, idle_timeout_s: float, slow_reader_timeout_s: float) -> Iterator[Activity]:
    """End the call if, within the block, it waits for its client for too long.

    The block keeps the Activity up to date. A client that has sent nothing for `idle_timeout_s` while the
    server reads gets IDLE_STREAM. One that has read nothing for `slow_reader_timeout_s` while the server
    writes gets SLOW_READER.
    """
    activity = Activity()
    timer: asyncio.TimerHandle

    def check() -> None:
        nonlocal timer
        now_s = activity.now()
        reader_left_s = slow_reader_timeout_s - (now_s - (activity.writing_since or now_s))
        sender_left_s = idle_timeout_s - (now_s - (activity.reading_since or now_s))
        left_s = min(reader_left_s, sender_left_s)
        if left_s > 0:
            timer = loop.call_later(left_s, check)
        elif reader_left_s <= 0:
            call.end(
                CallError(
                    "SLOW_READER",
                    f"The client has not read pending events for {slow_reader_timeout_s:g} s. Read events as "
                    "they arrive, also while you send audio.",
                )
            )
        else:
            call.end(
                CallError(
                    "IDLE_STREAM",
                    f"The client has sent nothing for {idle_timeout_s:g} s. Send audio, or `silence` while "
                    "there is none.",
                )
            )

    loop = asyncio.get_running_loop()
    timer = loop.call_later(min(idle_timeout_s, slow_reader_timeout_s), check)
    try:
        yield activity
    finally:
        timer.cancel()
