"""Waiting for an event, with a deadline that a busy machine does not reach."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

DEADLINE_S = 60
"""Longer than anything takes on a busy machine: a test that waits for longer has failed."""


class Deadline:
    """Fails a test that polls for an event for too long; `event` names it in the error message."""

    def __init__(self, event: str) -> None:
        self._event = event
        self._end_s = time.monotonic() + DEADLINE_S

    def wait(self) -> None:
        """Wait for a moment; fail after the deadline."""
        assert time.monotonic() < self._end_s, f"waited in vain for {self._event}"
        time.sleep(0.01)


def wait_until(condition: Callable[[], object], event: str) -> None:
    """Wait until a condition holds; `event` names it in the error message: waited in vain for `event`."""
    deadline = Deadline(event)
    while not condition():
        deadline.wait()
