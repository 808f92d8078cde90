"""Ctrl-C while a command starts."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager

TYPE_CHECKING = False  # the import of typing would come before the block
if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def interrupts_end_process() -> Iterator[None]:
    """Let Ctrl-C end the process at once within the block, unless it is ignored or handled otherwise.

    Python would raise KeyboardInterrupt in the middle of an import. It would end with a traceback, and
    modules in C turn it into other errors.
    """
    is_changed = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if is_changed:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        if is_changed:
            signal.signal(signal.SIGINT, signal.default_int_handler)
