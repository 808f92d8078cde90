"""Files that are written whole or not at all, and errors that say which file cannot be written."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from earmark_training.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise OutputError, which names the file and the cause, for an OSError while the file is written."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error


def part_of(path: Path) -> Path:
    """Return the file that becomes another one when it is complete."""
    return path.with_name(path.name + ".part")


def replace_file(path: Path, content: bytes | memoryview) -> None:
    """Write a file, replacing an older one atomically. Raises OutputError if it cannot be written."""
    part = part_of(path)
    with writing(path):
        try:
            with part.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())  # after a power failure, the new name must not have an empty file
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
