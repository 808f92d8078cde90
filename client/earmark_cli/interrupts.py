"""Ctrl-C while a command uses a server, and signals that end the process at once."""

from __future__ import annotations

import _thread
import multiprocessing
import signal
import sys
import threading
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Self

from earmark_audio.termination import termination_handled_by

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

_CLOSE_TIME_S = 1.0
"""How long the block has to end after `close`. It waits for something other than the server then."""


class Interrupts:
    """A context in which Ctrl-C closes the client, and becomes KeyboardInterrupt at the end of the block.

    Python would raise KeyboardInterrupt between any two instructions, in gRPC's code too. If that has just
    acquired a lock, closing its channel waits for ever.

    Within the block it is raised only if the block does not end after `close`, or at another Ctrl-C.
    """

    def __init__(self, close: Callable[[], None], *, stop: Callable[[], None] | None = None) -> None:
        """`close` ends the client's calls; it is called on a thread of its own.

        `stop`: what the first Ctrl-C calls instead, so that the block ends by itself, without an exception.
        """
        self.happened = False
        """Whether there was a Ctrl-C."""
        self._close, self._stop = close, stop
        self._closing: threading.Thread | None = None
        self._late = threading.Timer(_CLOSE_TIME_S, _interrupt_main_thread)
        self._late.daemon = True

    def __enter__(self) -> Self:
        # Only the main thread is interrupted. What a shell runs in the background may ignore it.
        self._is_installed = threading.current_thread() is threading.main_thread() and (
            self._stop is not None or signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
        )
        if self._is_installed:
            self._previous = signal.signal(signal.SIGINT, self._interrupt)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._late.cancel()
        if self._is_installed:
            signal.signal(signal.SIGINT, self._previous)
        if self._closing is not None:
            self._closing.join(_CLOSE_TIME_S)
        if self._closing is not None and (error is None or isinstance(error, Exception)):
            raise KeyboardInterrupt from error

    def _interrupt(self, _signal: int, _frame: object) -> None:
        if self._closing is not None:
            raise KeyboardInterrupt
        if self._stop is not None and not self.happened:
            self._stop()
        else:
            self._closing = threading.Thread(target=self._close, daemon=True)
            self._closing.start()
            self._late.start()
        self.happened = True


class _Deferral:
    """Whether the main thread is where it must not be ended, and the signal that has arrived there."""

    is_active = False
    pending: Callable[[], None] | None = None


@contextmanager
def termination_deferred() -> Iterator[None]:
    """Let a signal of `before_termination` that arrives within the block take effect at its end."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are handled in the main thread
        return
    _Deferral.is_active = True
    try:
        yield
    finally:
        _Deferral.is_active = False
        pending, _Deferral.pending = _Deferral.pending, None
        if pending is not None:
            pending()


@contextmanager
def before_termination(action: Callable[[], None]) -> Iterator[None]:
    """Call `action` before a signal other than Ctrl-C ends the process within the block.

    These are SIGTERM, as of a service manager, and SIGHUP, when the terminal is closed. One that is ignored,
    as by `nohup`, stays ignored. If `action` raises an exception, the block ends before the process does.
    """
    received: list[int] = []

    def terminate(number: int, frame: object) -> None:
        if _Deferral.is_active:
            _Deferral.pending = partial(terminate, number, frame)
            return
        # A second one ends the process at once. But the pool of --jobs sends one to each process as soon as
        # another has ended, so there the action ends first.
        is_worker = multiprocessing.parent_process() is not None
        signal.signal(number, signal.SIG_IGN if is_worker else signal.SIG_DFL)
        received.append(number)
        action()
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)

    try:
        with termination_handled_by(terminate):
            yield
    finally:
        if received:
            signal.raise_signal(received[0])


@contextmanager
def exit_on_sigterm() -> Iterator[None]:
    """Let SIGTERM, as of a service manager, end the block by SystemExit with code 0.

    So a command that serves until it is stopped has succeeded, and what the block has opened is closed.
    """

    def end(_signal: int, _frame: object) -> None:
        sys.exit(0)

    previous = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _interrupt_main_thread() -> None:
    if sys.platform == "win32":
        _thread.interrupt_main()
    else:
        # Unlike the other function, this also interrupts a read that blocks.
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
