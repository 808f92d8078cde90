"""Sees that the server makes no progress, and has something done about it.

Neither the engine's thread nor the event loop can tell that it is stuck, so a third thread looks at both,
several times in each `stall_timeout_s`. What stood still at all of these looks is stalled. Looks are
counted, not time: where the machine was suspended, or the process was stopped, time passes in which nobody
can make progress, but only one look.

A stalled engine is told to the server, which ends its streams so that their clients resume elsewhere, and
told again when it goes on by itself. What is still stalled `stall_exit_s` later ends the process, for
whoever supervises it to start another one; so does an engine whose thread has died, at once. What holds
Python's global lock for ever stops this thread too: only a health check from outside sees that.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import traceback
from typing import TYPE_CHECKING

from earmark_server.logs import log

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from earmark_server.inference.engine import Engine
    from earmark_server.settings import Settings

_LOGGER = logging.getLogger(__name__)

EXIT_CODE = 70
"""What the process exits with when it is stuck: EX_SOFTWARE of sysexits.h."""

_LOOKS = 8
"""Looks in `stall_timeout_s`."""

# What the ended streams of a dead engine get to tell their clients why.
_LAST_WORDS_S = 1.0


class Watchdog:
    """Watches an engine, and the event loop that it reports to, from `start` to `stop`."""

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
        """`on_engine` is called on the loop with whether the engine is well, when that changes.

        `exits`: whether to end the process in the end; not where it is somebody else's.
        """
        self.stalls = 0
        """How often something stalled."""
        self._engine = engine
        self._on_engine = on_engine
        self._loop = loop
        self._interval_s = settings.stall_timeout_s / _LOOKS
        self._exit_looks = _LOOKS + settings.stall_exit_s / self._interval_s
        self._exits = exits
        self._engine_watch = _Watch("engine", engine.thread)
        self._loop_watch = _Watch("event loop", loop_thread)
        self._progress = -1
        self._answered = True
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="earmark-watchdog", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stopping.set()

    def look(self) -> None:
        """Look once, and do what is to be done."""
        answered = self._answered
        if answered:
            self._answered = False
            self._loop.call_soon_threadsafe(self._answer)
        self._count(self._loop_watch, stands_still=not answered)
        before, self._progress = self._progress, self._engine.progress
        # What waits while the engine does too is for the loop to hand over.
        audio_waits = self._engine.is_busy or (answered and self._engine.has_due)
        was_well = not self._engine_watch.stalled
        self._count(self._engine_watch, stands_still=audio_waits and before == self._progress)
        is_well = not self._engine_watch.stalled
        if is_well != was_well:
            self._loop.call_soon_threadsafe(self._on_engine, is_well)

    def _run(self) -> None:
        while not self._stopping.wait(self._interval_s):
            try:
                if not self._engine.thread.is_alive():
                    self._loop.call_soon_threadsafe(self._on_engine, False)
                    if not self._stopping.wait(_LAST_WORDS_S):
                        self._exit("engine died")
                    return
                self.look()
            except RuntimeError:
                return  # The loop was closed: nobody is served any more.
            for watch in (self._engine_watch, self._loop_watch):
                if watch.looks >= self._exit_looks:
                    self._exit(f"{watch.name} stalled")

    def _answer(self) -> None:
        self._answered = True

    def _count(self, watch: _Watch, *, stands_still: bool) -> None:
        was_stalled = watch.stalled
        watch.looks = watch.looks + 1 if stands_still else 0
        if watch.stalled and not was_stalled:
            self.stalls += 1
            log(_LOGGER, logging.ERROR, f"{watch.name} stalled", stack=stack(watch.thread))
        elif was_stalled and not watch.stalled:
            log(_LOGGER, logging.INFO, f"{watch.name} well")

    def _exit(self, why: str) -> None:
        if self._exits:
            log(_LOGGER, logging.CRITICAL, "exiting", because=why, exit_code=EXIT_CODE)
            # A stuck thread lets no exit come to its end but this one.
            os._exit(EXIT_CODE)


class _Watch:
    """How long a thread has stood still, in looks."""

    def __init__(self, name: str, thread: threading.Thread) -> None:
        self.name = name
        self.thread = thread
        self.looks = 0

    @property
    def stalled(self) -> bool:
        return self.looks >= _LOOKS


def stack(thread: threading.Thread) -> list[str]:
    """Tell where a thread stands, innermost first: file, line and function of each frame, no values."""
    frame = sys._current_frames().get(thread.ident or 0)
    return [
        f"{each.f_code.co_filename}:{line} {each.f_code.co_qualname}"
        for each, line in traceback.walk_stack(frame)
        if frame is not None
    ]
