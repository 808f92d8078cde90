"""The hand-over between the event loop and the engine's thread: commands, notifications and results."""

from __future__ import annotations

import enum
import time
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from earmark_server.inference.events import Event
    from earmark_server.inference.stream_handle import StreamHandle


class Command(enum.Enum):
    """An instruction from the event loop about one stream."""

    OPEN = enum.auto()
    CLOSE = enum.auto()
    REPORT_CAPACITY = enum.auto()
    UNPARK = enum.auto()
    REPORT_PROGRESS = enum.auto()


class Result(NamedTuple):
    """Events of one stream for the event loop.

    `parked`: the engine waits until they are read. `has_capacity`: the call may send more audio.
    """

    handle: StreamHandle
    events: Sequence[Event]
    parked: bool
    has_capacity: bool


class Notifications:
    """Streams whose audio became due: the event loop adds them, and the engine's thread removes them.

    A stream is in here at most once. `is_notified` of its handle is set before the stream is added and
    reset after it was removed. The engine's thread looks at the stream's audio after the reset, so audio
    that arrives at any moment is either announced or seen.
    """

    def __init__(self) -> None:
        self._handles: deque[StreamHandle] = deque()

    def __len__(self) -> int:
        return len(self._handles)

    @property
    def oldest_s(self) -> float:
        """The time at which the first stream was added; infinity if there is none."""
        try:
            return self._handles[0].notified_s
        except IndexError:
            return float("inf")

    def add(self, handle: StreamHandle) -> None:
        """Add a stream; on the event loop only."""
        if not handle.is_notified:
            handle.is_notified = True
            handle.notified_s = time.monotonic()
            self._handles.append(handle)

    def pop(self) -> StreamHandle | None:
        """Remove and return the first stream, None if there is none; on the engine's thread only."""
        if not self._handles:
            return None
        handle = self._handles.popleft()
        handle.is_notified = False
        return handle
