"""Files that commands write."""

from __future__ import annotations

from typing import TYPE_CHECKING

from earmark_client.errors import RecordingError

if TYPE_CHECKING:
    from pathlib import Path


def check_writable(path: Path) -> None:
    """Raise RecordingError if a file cannot be written. Commands call it before work that takes long."""
    if path.is_fifo():
        return  # opening it would wait for its reader
    try:
        is_new = not path.exists()
        path.open("ab").close()
        if is_new:
            path.unlink()
    except OSError as error:
        raise RecordingError(f"{path} cannot be written: {error.strerror}") from error
