"""Signals that end a command, and worker processes that end with it and with the work that they are for."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TYPE_CHECKING

from earmark_audio.termination import HANGUP, termination_handled_by

from earmark_training.errors import WorkerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let SIGTERM, and SIGHUP of a closed terminal, end the block by SystemExit.

    So the block ends its workers and removes its temporary files, which may be gigabytes. A signal that is
    ignored, as by `nohup`, stays ignored; a second one ends the process at once.
    """

    def end(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        sys.exit(128 + number)

    with termination_handled_by(end):
        yield


@contextmanager
def worker_pool(
    workers: int | None,
    *,
    method: str | None = None,
    initializer: Callable[..., object] | None = None,
    initargs: tuple[object, ...] = (),
) -> Iterator[ProcessPoolExecutor]:
    """Start a pool of worker processes, one per core if `workers` is None.

    After an error or Ctrl-C within this context, its workers end at once, and no waiting job starts. `method`
    is how multiprocessing starts a process. Raises WorkerError if a worker was killed.
    """
    pool = ProcessPoolExecutor(
        workers or os.cpu_count(),
        multiprocessing.get_context(method),
        _start_worker,
        (initializer, initargs),
    )
    results = pool._result_queue
    try:
        yield pool
    except BaseException as error:
        for process in multiprocessing.active_children():
            process.kill()  # SIGTERM is lost in a process that was just forked, if it has a handler
        # The pool may be reading a result that a worker has sent in part, and would wait for the rest: the
        # pipe ends when this process, too, can no longer write to it.
        results._writer.close()  # type: ignore[attr-defined]
        if isinstance(error, BrokenProcessPool):
            raise WorkerError from None
        raise
    finally:
        # Wait: if the pool's own thread ended while Python exits, it could write an error to the terminal.
        pool.shutdown(cancel_futures=True)


def _start_worker(initializer: Callable[..., object] | None, initargs: tuple[object, ...]) -> None:
    # Ctrl-C and the end of a terminal reach the workers too, which would write a traceback each, or end
    # before their parent knows why: their parent ends them.
    for number in (signal.SIGINT, *HANGUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a forked process has the handler of its parent
    end_with_parent()
    if initializer is not None:
        initializer(*initargs)


def end_with_parent() -> None:
    """End this process, which multiprocessing started, as soon as its parent has ended.

    A parent that is killed cannot stop its workers, which would wait for more work forever. Call this at the
    start of a process; the workers of `worker_pool` do.
    """
    threading.Thread(target=_exit_after_parent, daemon=True).start()


def _exit_after_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
