"""Files that commands write."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from earmark_client.errors import RecordingError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def check_writable(path: Path) -> None:
    """Raise RecordingError if a file cannot be written. Commands call it before work that takes long."""
    try:
        if path.is_fifo():
            return  # opening it would wait for its reader
        is_new = not path.exists()
        path.open("ab").close()
        if is_new:
            path.unlink()
    except OSError as error:
        raise RecordingError(f"{path} cannot be written: {error.strerror}") from error


def file_size(path: str | Path) -> int:
    """Return the size of a file in bytes; 0 if there is none, as of standard input and of a channel."""
    try:
        return os.path.getsize(path)
    except OSError:
        return 0


def reserve(path_of: Callable[[int], Path]) -> Path:
    """Return the path of the first number, from 1, at which there is no file. Raises OSError.

    The file with the suffix `.part` beside it is created, so that no other process reserves the path: write
    that one, and rename it.
    """
    number = 1
    while True:
        path = path_of(number)
        part = path.with_suffix(".part")
        number += 1
        try:
            part.open("xb").close()
        except FileExistsError:
            continue
        # Only now: another process may have renamed its file just before.
        if not path.exists():
            return path
        part.unlink()
