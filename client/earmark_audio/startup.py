"""The start of a command: Ctrl-C during it, and the standard streams."""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import contextmanager, suppress

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


def make_blocking(descriptor: int) -> None:
    """Let reads and writes of a file descriptor wait, if another process has made it non-blocking.

    Otherwise a pipe to which nothing has been written for a moment looks as if it had ended, and output that
    does not fit into a full pipe is lost. Processes that share a pipe or a terminal share this setting.
    """
    if sys.platform != "win32":
        os.set_blocking(descriptor, True)


def prepare_standard_streams(program: str) -> bool:
    """Open standard input and standard error if they were closed, and make all standard streams blocking.

    Closed descriptors would become those of files and connections, to which libraries write errors. Return
    whether standard output is open; if not, print that results cannot be written.
    """
    for descriptor in (0, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            # Only for writing, so that standard input still cannot be read.
            null = os.open(os.devnull, os.O_WRONLY)
            if null != descriptor:
                os.dup2(null, descriptor)
                os.close(null)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", closefd=False)
    for descriptor in range(3):
        with suppress(OSError):  # standard output is closed
            make_blocking(descriptor)
    if sys.stdout is None:
        print(f"{program}: the results cannot be written: standard output is closed", file=sys.stderr)
    return sys.stdout is not None
