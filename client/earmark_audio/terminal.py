"""Text for a terminal: what may be printed on it, and whether there is one."""

from __future__ import annotations

import os
import re
import sys
from typing import IO

# Control characters (C0, DEL, C1), line and paragraph separators, characters that reorder text, and the
# surrogates that stand for bytes which are not UTF-8.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    r"""Return a text with its control characters escaped, such as ESC as \x1b, and what is not UTF-8."""
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def is_terminal(stream: IO[str]) -> bool:
    """Return whether a stream is a terminal that can move its cursor."""
    return stream.isatty() and os.environ.get("TERM") not in {"dumb", "unknown"}


def report_unwritable(program: str, error: OSError) -> None:
    """Print why the output of a program cannot be written, unless its reader has closed the pipe.

    The rest of the output is discarded.
    """
    if not isinstance(error, BrokenPipeError):
        print(f"{program}: the results cannot be written: {error.strerror}", file=sys.stderr)
    # Python flushes the output again at exit, which would print another error.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def format_duration(seconds: float) -> str:
    """Format a length of time as 1:05 or 1:00:05."""
    minutes, remainder = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{remainder:02}" if hours else f"{minutes}:{remainder:02}"
