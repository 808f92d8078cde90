"""Processes that work for this one."""

from __future__ import annotations

import multiprocessing
import os
import threading


def end_with_parent() -> None:
    """Let this process, which multiprocessing started, end as soon as its parent has ended.

    A parent that is killed tells nobody: its workers would go on, and then wait for more work for ever. This
    is for the initializer of a pool, or the beginning of a process.
    """
    threading.Thread(target=_end_after_parent, daemon=True).start()


def _end_after_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
