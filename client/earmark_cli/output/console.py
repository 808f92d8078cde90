"""Lines on standard output and notices on standard error.

Names of files and texts of servers may contain terminal control sequences, which could clear the screen or
set its title, and names of files may contain bytes that are no text. Everything that is printed therefore
passes through `printable`.
"""

from __future__ import annotations

import sys

from earmark_audio.terminal import format_duration, is_terminal, printable

__all__ = [
    "can_encode",
    "format_duration",
    "is_terminal",
    "notice",
    "print_escaped",
    "print_line",
    "printable",
    "report_connection",
]


def print_line(text: str) -> None:
    """Print a line of the results, with control characters escaped."""
    print_escaped(printable(text))


def print_escaped(line: str) -> None:
    """Print a line that is printable, or contains only our own control sequences.

    The line is flushed, because a detection must be visible at once.
    """
    print(line, flush=True)


def notice(text: str) -> None:
    """Print a line on standard error, with control characters escaped."""
    print(printable(text), file=sys.stderr, flush=True)


def report_connection(connected: bool) -> None:
    """Print a notice that the microphone has stopped, or is connected again."""
    if connected:
        notice("earmark: the microphone is back")
    else:
        notice("earmark: the microphone has stopped: waiting until it is connected again; Ctrl-C stops")


def can_encode(text: str) -> bool:
    """Return whether the encoding of standard output has all characters of a text."""
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True
