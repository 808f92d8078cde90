"""Worker processes that end with the process that started them."""

from __future__ import annotations

import multiprocessing
import os
import threading


def end_with_parent() -> None:
    """End this process, which multiprocessing started, as soon as its parent has ended.

    A parent that is killed cannot stop its workers, which would wait for more work forever. Call this in the
    initializer of a pool, or at the start of a process.
    """
    threading.Thread(target=_exit_after_parent, daemon=True).start()


def _exit_after_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
