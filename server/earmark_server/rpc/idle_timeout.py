"""Ends a call whose client neither sends nor reads. It needs one timer per call, and no work per message."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from earmark_server.status import CallError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from earmark_server.rpc.call import Call


_LATE_S = 1.0
"""How late a timer is only if the process was suspended, or its event loop blocked."""


class Activity:
    """The times since which a call waits for its client, on the loop's clock; None while it does not wait."""

    def __init__(self, on_idle: Callable[[CallError], None], count_message: Callable[[int], None]) -> None:
        self.now = asyncio.get_running_loop().time
        self.on_idle = on_idle
        """Ends the call with an error because it is idle."""
        self.count_message = count_message
        """Counts a message with this many bytes of audio."""
        self.reading_since: float | None = None
        self.writing_since: float | None = None

    def restart(self) -> None:
        """Let the times begin now: the loop could not see what the client did in the meantime."""
        now_s = self.now()
        self.reading_since = self.reading_since and now_s
        self.writing_since = self.writing_since and now_s


@contextlib.contextmanager
def end_when_idle(call: Call, idle_timeout_s: float, slow_reader_timeout_s: float) -> Iterator[Activity]:
    """End the call if, within the block, it waits for its client for too long.

    The block keeps the Activity up to date. A client that has sent nothing for `idle_timeout_s` while the
    server reads gets IDLE_STREAM, by `Activity.on_idle`. One that has read nothing for
    `slow_reader_timeout_s` while the server writes gets SLOW_READER, also after IDLE_STREAM. Time in
    which the process is suspended does not count.
    """
    activity = Activity(call.end, call.count_message)
    is_idle = False
    timer: asyncio.TimerHandle
    due_s: float  # when the timer is to fire

    def check() -> None:
        nonlocal timer, due_s, is_idle
        now_s = activity.now()
        if now_s - due_s > _LATE_S:
            activity.restart()
        reader_left_s = slow_reader_timeout_s - (now_s - (activity.writing_since or now_s))
        sender_left_s = idle_timeout_s - (now_s - (activity.reading_since or now_s))
        if reader_left_s <= 0:
            call.end(
                CallError(
                    "SLOW_READER",
                    f"The client has not read pending events for {slow_reader_timeout_s:g} s. Read events as "
                    "they arrive, also while you send audio.",
                )
            )
            return
        if sender_left_s <= 0 and not is_idle:
            is_idle = True
            activity.on_idle(
                CallError(
                    "IDLE_STREAM",
                    f"The client has sent nothing for {idle_timeout_s:g} s. Send the rest of the request. "
                    "In a stream, send audio, or `silence` while there is none.",
                )
            )
        left_s = reader_left_s if is_idle else min(reader_left_s, sender_left_s)
        due_s = now_s + left_s
        timer = loop.call_later(left_s, check)

    loop = asyncio.get_running_loop()
    first_s = min(idle_timeout_s, slow_reader_timeout_s)
    due_s = activity.now() + first_s
    timer = loop.call_later(first_s, check)
    try:
        yield activity
    finally:
        timer.cancel()
