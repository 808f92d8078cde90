"""The `earmark` command, or a shell, on a terminal: a real pty, and a screen (pyte) to look at it."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from typing import TYPE_CHECKING, Self

import pyte

from support.environment import clean_environment

if TYPE_CHECKING:
    from collections.abc import Callable

TIMEOUT_S = 60

# The command has this terminal as its controlling terminal, from which Ctrl-C comes.
_ON_THIS_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(1, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


class Terminal:
    """Runs the command with output, errors and Ctrl-C on a terminal of this size.

    Its standard input is a pipe, `stdin`, so that a test can write audio. `shell`: run this shell instead
    of the command, with the terminal as its standard input too.
    """

    def __init__(
        self, *args: object, columns: int = 90, lines: int = 24, shell: str | None = None, **variables: str
    ) -> None:
        self._args, self._variables, self._shell = args, variables, shell
        self._master, self._slave = pty.openpty()
        self.screen = pyte.HistoryScreen(columns, lines, history=1000)
        self._stream = pyte.ByteStream(self.screen)
        self.raw = b""
        self.resize(columns, lines)

    def __enter__(self) -> Self:
        dropped = ("NO_COLOR", "COLUMNS", "LINES", "FORCE_COLOR")
        kept = {name: value for name, value in clean_environment().items() if not name.startswith(dropped)}
        utf8 = {"TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"}
        program = [sys.executable, "-m", "earmark_cli"] if self._shell is None else [self._shell]
        self._process = subprocess.Popen(
            [sys.executable, "-c", _ON_THIS_TERMINAL, *program, *map(str, self._args)],
            stdin=subprocess.PIPE if self._shell is None else self._slave,
            stdout=self._slave,
            stderr=self._slave,
            env={**kept, **utf8, **self._variables},
            start_new_session=True,
        )
        if self._process.stdin is not None:
            self.stdin = self._process.stdin
        os.close(self._slave)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        os.close(self._master)

    @property
    def text(self) -> str:
        """Return the text on the screen."""
        return "\n".join(line.rstrip() for line in self.screen.display).strip("\n")

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self._master, keys.encode())

    def resize(self, columns: int, lines: int) -> None:
        """Resize the terminal."""
        self.screen.resize(lines, columns)
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def wait_for(self, seen: Callable[[str], object]) -> str:
        """Wait until the screen shows a text."""
        deadline_s = time.monotonic() + TIMEOUT_S
        while not seen(self.text):
            assert time.monotonic() < deadline_s, self.text
            assert self._read(), f"the command ended; its screen:\n{self.text}"
        return self.text

    def wait(self) -> int:
        """Wait for the exit of the command, and return its exit code."""
        deadline_s = time.monotonic() + TIMEOUT_S
        while self._read():
            assert time.monotonic() < deadline_s, self.text
        return self._process.wait(TIMEOUT_S)

    def _read(self) -> bool:
        """Read the output of a moment; return False when the terminal is closed."""
        if not select.select([self._master], [], [], 0.2)[0]:
            return True
        try:
            data = os.read(self._master, 65536)
        except OSError:  # EIO: no process has it open any more
            return False
        self.raw += data
        self._stream.feed(data)
        return bool(data)
