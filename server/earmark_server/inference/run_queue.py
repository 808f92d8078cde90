"""The run queue: streams that wait for inference, live ones first, then those of each client in turn."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from earmark_server.inference.engine_slot import EngineSlot

# Of every 8 streams that leave the queue, one is not live, if such a stream waits. So a stream that replays
# audio in order to resume makes progress even while the live ones need all of the engine's time.
_TURN = 8


class RunQueue:
    """The queue of the engine's thread. Other threads may read `len` and `oldest_s`."""

    def __init__(self) -> None:
        self._live: deque[EngineSlot] = deque()
        # Streams that send faster than real time, by client. The first client has the next turn.
        self._fast: dict[str, deque[EngineSlot]] = {}
        self._fast_count = 0
        self._live_turns = 0  # since the last other one

    def __len__(self) -> int:
        return len(self._live) + self._fast_count

    @property
    def oldest_live_s(self) -> float:
        """The time at which the live stream that is next was queued; infinity if there is none."""
        try:
            return self._live[0].queued_s
        except IndexError:
            return float("inf")

    def append(self, slot: EngineSlot) -> None:
        """Add a stream, according to its pace when it was last processed."""
        if slot.handle.pace.is_live:
            self._live.append(slot)
            return
        self._fast.setdefault(slot.handle.client, deque()).append(slot)
        self._fast_count += 1

    def pop_live(self) -> EngineSlot | None:
        """Remove and return the next live stream; None if there is none."""
        if not self._live:
            return None
        self._live_turns += 1
        return self._live.popleft()

    def pop(self) -> EngineSlot:
        """Remove and return the next stream; IndexError if there is none."""
        if self._live_turns < _TURN - 1 or not self._fast:
            slot = self.pop_live()
            if slot is not None:
                return slot
        if not self._fast:
            raise IndexError("The queue is empty.")
        self._live_turns = 0
        client = next(iter(self._fast))
        slots = self._fast.pop(client)
        slot = slots.popleft()
        self._fast_count -= 1
        if slots:
            self._fast[client] = slots  # behind the other clients
        return slot
