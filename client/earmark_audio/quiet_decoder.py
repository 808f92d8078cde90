"""The messages of libsndfile's decoders, kept off standard error.

libmpg123 prints a line for each damaged frame of an MP3 file, and libsndfile has no setting against it. They
print to the variable `stderr` of the C library, which Python does not use.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def quiet_decoder() -> Iterator[None]:
    """Print nothing of what the decoder prints inside of the block."""
    stderr, streams = _streams()
    if stderr is None:
        yield
        return
    # Threads may be in such blocks at the same time: each sets one of the same two values.
    stderr.value = streams[1]
    try:
        yield
    finally:
        stderr.value = streams[0]


@cache
def _streams() -> tuple[ctypes.c_void_p | None, tuple[int | None, int | None]]:
    """Return the variable, its value, and the stream that drops everything; None where there is no such."""
    try:
        library = ctypes.CDLL(None)
        stderr = ctypes.c_void_p.in_dll(library, "stderr")
        library.fopen.restype = ctypes.c_void_p
        dropped = library.fopen(os.devnull.encode(), b"w")
    except (OSError, TypeError, ValueError, AttributeError):  # another C library
        return None, (None, None)
    return (stderr, (stderr.value, dropped)) if dropped else (None, (None, None))
