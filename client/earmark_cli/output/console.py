"""Lines on standard output, notices on standard error, and what the terminals can show."""

from __future__ import annotations

import os
import sys
from typing import IO


def print_line(text: str) -> None:
    """Print a line of the results at once, because a detection is news."""
    print(text, flush=True)


def notice(text: str) -> None:
    """Print a line on standard error."""
    print(text, file=sys.stderr, flush=True)


def is_terminal(stream: IO[str]) -> bool:
    """Return whether a stream is a terminal that can move its cursor."""
    return stream.isatty() and os.environ.get("TERM") not in {"dumb", "unknown"}


def can_encode(text: str) -> bool:
    """Return whether the encoding of standard output has all characters of a text."""
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def format_duration(seconds: float) -> str:
    """Format a length of time as 1:05 or 1:00:05."""
    minutes, remainder = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{remainder:02}" if hours else f"{minutes}:{remainder:02}"
