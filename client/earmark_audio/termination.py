"""The signals that end a command other than Ctrl-C."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

HANGUP = (signal.SIGHUP,) if hasattr(signal, "SIGHUP") else ()
"""The signal of a closed terminal, which not every system has."""


@contextmanager
def termination_handled_by(handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Let a service manager's SIGTERM, and the SIGHUP of a closed terminal, call `handler` within the block.

    A signal that is ignored, as by `nohup`, or handled otherwise stays so. Threads other than the main one
    cannot handle signals: there, this does nothing.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    numbers = [
        number
        for number in (signal.SIGTERM, *HANGUP)
        if in_main_thread and signal.getsignal(number) is signal.SIG_DFL
    ]
    for number in numbers:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)
