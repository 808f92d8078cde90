"""The watchdog: detects that the engine or the event loop makes no progress, and acts on it.

Neither thread can detect that it is itself stuck, so a third thread checks both, several times in each
`stall_timeout_s`, and half as often while both make progress. A thread that made no progress at all of these
checks has stalled. The watchdog counts checks rather than time: while the machine is suspended or the
process is stopped, time passes in which no thread can make progress, but at most one check falls into it.

When the engine stalls, the watchdog notifies the server, which ends its streams so that their clients
resume elsewhere. It notifies the server again if the engine recovers. If the stall lasts for
`stall_exit_s` more, the watchdog ends the process, so that a supervisor starts another one. If the
engine's thread has died, it does so at once. A thread that never releases Python's global interpreter lock
stops the watchdog too; only a health check from outside detects that.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import traceback
from typing import TYPE_CHECKING, Any, NoReturn

from earmark_server.logs import log

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from earmark_server.inference.engine import Engine
    from earmark_server.settings import Settings

_LOGGER = logging.getLogger(__name__)

EXIT_CODE = 70
"""The exit code of a process that is stuck: EX_SOFTWARE of sysexits.h."""

_CHECKS = 8
"""Checks in `stall_timeout_s`."""

# How long the ended streams of a dead engine have to send their status to their clients.
_LAST_WORDS_S = 1.0


class Watchdog:
    """Checks an engine, and the event loop that it reports to, from `start` to `stop`."""

    def __init__(
        self,
        engine: Engine,
        settings: Settings,
        on_engine: Callable[[bool], None],
        *,
        loop: asyncio.AbstractEventLoop,
        loop_thread: threading.Thread,
        exits: bool,
    ) -> None:
        """`on_engine` is called on the loop with whether the engine makes progress, when that changes.

        `exits`: whether to end the process in the end; False inside another program.
        """
        self.stalls = 0
        """How many times the engine or the event loop stalled."""
        self._engine = engine
        self._on_engine = on_engine
        self._loop = loop
        self._interval_s = settings.stall_timeout_s / _CHECKS
        self._exit_checks = _CHECKS + settings.stall_exit_s / self._interval_s
        self._exits = exits
        self._engine_watch = _Watch("engine", engine.thread)
        self._loop_watch = _Watch("event loop", loop_thread)
        self._heartbeat = self._loop_heartbeat = -1
        self._loop_answered = True
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="earmark-watchdog", daemon=True)

    def start(self) -> None:
        """Start checking."""
        self._thread.start()

    def stop(self) -> None:
        """Stop checking."""
        self._stopping.set()

    def check(self) -> None:
        """Check both threads once, and notify the server of a change."""
        counters = self._engine.counters
        # A loop that receives audio need not be woken for an answer.
        loop_before, self._loop_heartbeat = self._loop_heartbeat, counters.loop_heartbeat
        if loop_before != self._loop_heartbeat:
            loop_answered = self._loop_answered = True
        elif loop_answered := self._loop_answered:
            self._loop_answered = False
            self._loop.call_soon_threadsafe(self._answer)
        self._count(self._loop_watch, stands_still=not loop_answered)
        before, self._heartbeat = self._heartbeat, counters.heartbeat
        # If the engine waits although streams are due, it is the loop that has to wake it.
        has_work = counters.is_busy or (loop_answered and self._engine.has_due)
        was_stalled = self._engine_watch.is_stalled
        self._count(self._engine_watch, stands_still=has_work and before == self._heartbeat)
        is_stalled = self._engine_watch.is_stalled
        if is_stalled != was_stalled:
            self._loop.call_soon_threadsafe(self._on_engine, not is_stalled)

    def _run(self) -> None:
        watches = self._engine_watch, self._loop_watch
        while not self._stopping.wait(
            self._interval_s if any(watch.checks for watch in watches) else 2 * self._interval_s
        ):
            try:
                if not self._engine.thread.is_alive():
                    self._loop.call_soon_threadsafe(self._on_engine, False)
                    if not self._stopping.wait(_LAST_WORDS_S):
                        self._exit("engine died")
                    return
                self.check()
            except Exception:
                if self._loop.is_closed():
                    return  # the server is gone
                # The next check may work.
                _LOGGER.exception("the watchdog has failed")
            for watch in watches:
                if watch.checks >= self._exit_checks:
                    self._exit(f"{watch.name} stalled")

    def _answer(self) -> None:
        self._loop_answered = True

    def _count(self, watch: _Watch, *, stands_still: bool) -> None:
        was_stalled = watch.is_stalled
        watch.checks = watch.checks + 1 if stands_still else 0
        if watch.is_stalled and not was_stalled:
            self.stalls += 1
            log(_LOGGER, logging.ERROR, f"{watch.name} stalled", stack=stack(watch.thread))
        elif was_stalled and not watch.is_stalled:
            log(_LOGGER, logging.INFO, f"{watch.name} recovered")

    def _exit(self, reason: str) -> None:
        if self._exits:
            exit_process(reason)


def exit_process(reason: str, **details: Any) -> NoReturn:
    """End the process at once, so that a supervisor starts another one; `details`: more fields of the log."""
    log(_LOGGER, logging.CRITICAL, "exiting", because=reason, exit_code=EXIT_CODE, **details)
    # A regular exit would wait for a stuck thread.
    os._exit(EXIT_CODE)


class _Watch:
    """How long a thread has made no progress, in checks."""

    def __init__(self, name: str, thread: threading.Thread) -> None:
        self.name = name
        self.thread = thread
        self.checks = 0

    @property
    def is_stalled(self) -> bool:
        return self.checks >= _CHECKS


def stack(thread: threading.Thread) -> list[str]:
    """Return a thread's stack, innermost frame first: file, line and function of each frame, no values."""
    frame = sys._current_frames().get(thread.ident or 0)
    return [
        f"{each.f_code.co_filename}:{line} {each.f_code.co_qualname}"
        for each, line in traceback.walk_stack(frame)
        if frame is not None
    ]
