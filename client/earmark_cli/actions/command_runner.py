"""Runs a command for each detection, alongside the stream, which never waits for it."""

from __future__ import annotations

import math
import os
import selectors
import shutil
import signal
import subprocess
import threading
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

from earmark_cli.interrupts import termination_deferred

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Detections that wait for a command to end. More than that are a flood, and commands for them come too late.
_MAX_WAITING = 1000
_MAX_OUTPUT_BYTES = 4096
_POLL_S = 0.1


class CommandRunner:
    """Runs one command, `argv`, without a shell, each time with other environment variables.

    At most `concurrency` run at once, and further runs wait in the order in which they were requested. A
    command that runs for longer than `timeout_s` is killed. Failures become messages.
    """

    def __init__(self, argv: Sequence[str], *, concurrency: int, timeout_s: float) -> None:
        self._argv = list(argv)
        self._concurrency = concurrency
        self._timeout_s = timeout_s
        self._changed = threading.Condition()
        # Guards the processes. It is held while one starts, so that `kill` leaves none behind that has just
        # started. Whoever holds it never waits for `_changed`, which a signal handler may find held.
        self._starting = threading.RLock()
        self._waiting: deque[Mapping[str, str]] = deque()
        self._running = 0
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._is_killed = False
        self._dropped = 0
        self._messages: list[str] = []
        if shutil.which(argv[0]) is None:
            self._messages.append(f"{argv[0]}: there is no such command, or it is not executable")

    def run(self, variables: Mapping[str, str]) -> None:
        """Run the command with these variables in its environment; return at once."""
        # A signal in between would wait for a thread that has not been started.
        with termination_deferred(), self._changed:
            if self._running < self._concurrency:
                self._running += 1
                # A daemon thread must not keep the program from exiting.
                threading.Thread(
                    target=self._work, args=[variables], name="earmark-exec", daemon=True
                ).start()
            elif len(self._waiting) < _MAX_WAITING:
                self._waiting.append(variables)
            else:
                self._dropped += 1

    def messages(self) -> list[str]:
        """Return the messages since the last call: failures, and the output of commands."""
        with self._changed:
            messages, self._messages = self._messages, []
            if self._dropped:
                messages.append(
                    f"{self._argv[0]}: not run for {self._dropped} detections, because {_MAX_WAITING} others "
                    "wait for it"
                )
                self._dropped = 0
        return messages

    @property
    def unfinished(self) -> int:
        """The number of commands that run or wait."""
        with self._changed:
            return self._running + len(self._waiting)

    def wait(self, longest_s: float = math.inf) -> bool:
        """Wait until all commands have ended, but not for longer than that; return whether they have."""
        deadline_s = time.monotonic() + longest_s
        with self._changed:
            while self._running and time.monotonic() < deadline_s:
                # With a timeout, because a signal that arrives just before an endless wait is not handled.
                self._changed.wait(_POLL_S)
            return not self._running

    def kill(self) -> None:
        """Kill all commands that run, and discard those that wait. Nothing can be run after it."""
        self._is_killed = True
        with self._changed:
            self._waiting.clear()
        with self._starting:
            for process in self._processes:
                _kill(process)

    def _work(self, variables: Mapping[str, str]) -> None:
        """Run the command, and then for the detections that wait; runs on its own thread."""
        current: Mapping[str, str] | None = variables
        while current is not None:
            messages = self._run_once(current)
            with self._changed:
                self._messages += [f"{self._argv[0]}: {message}" for message in messages]
                current = self._waiting.popleft() if self._waiting else None
                if current is None:
                    self._running -= 1
                    self._changed.notify_all()

    def _run_once(self, variables: Mapping[str, str]) -> list[str]:
        with self._starting:
            if self._is_killed:
                return []
            try:
                process = subprocess.Popen(
                    self._argv,
                    stdin=subprocess.DEVNULL,  # standard input may be the audio
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **variables},
                    start_new_session=True,  # the first Ctrl-C ends the stream, not the commands
                )
            except (OSError, ValueError) as error:
                return [getattr(error, "strerror", None) or str(error)]
            self._processes.add(process)
        with process:
            try:
                output = self._read_output(process)
                in_time = process.returncode is not None
                if not in_time:
                    _kill(process)
                code = process.wait()
            finally:
                with self._starting:
                    self._processes.discard(process)
        messages = output.decode(errors="backslashreplace").splitlines()
        if not in_time:
            messages.append(f"killed after {self._timeout_s:g} s")
        elif code:
            messages.append(f"failed with {f'signal {-code}' if code < 0 else f'exit code {code}'}")
        return messages

    def _read_output(self, process: subprocess.Popen[bytes]) -> bytes:
        """Read the output until the command ends or its time is over; return the end of it."""
        assert process.stdout is not None
        descriptor = process.stdout.fileno()
        os.set_blocking(descriptor, False)
        deadline_s = time.monotonic() + self._timeout_s
        output, is_open = b"", True
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)
            while time.monotonic() < deadline_s:
                ended = process.poll() is not None
                if is_open and selector.select(0 if ended else _POLL_S):
                    data = os.read(descriptor, 1 << 16)
                    output, is_open = (output + data)[-_MAX_OUTPUT_BYTES:], bool(data)
                elif ended:
                    break
                elif not is_open:
                    with suppress(subprocess.TimeoutExpired):
                        process.wait(_POLL_S)
        return output


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a command and its descendants."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
