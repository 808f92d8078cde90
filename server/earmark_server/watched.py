"""A file that may be replaced while the server runs: its certificates, its tokens, its models."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from os import PathLike


class Watched:
    """Tells whether a file was replaced or written to.

    Look first and read then: what is written while it is being read shows at the next look. So a file
    that is read half-written is told of again when it is whole. Links are followed.

    token_file = Watched(path)
    tokens = read(path)
    ...
    if token_file.changed():
        tokens = read(path)
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = path
        self._seen = self._signature()

    def changed(self) -> bool:
        """Whether it is another file, or has another length or time, than at the last look; cheap."""
        signature = self._signature()
        changed = signature != self._seen
        self._seen = signature
        return changed

    def _signature(self) -> tuple[int, ...] | None:
        """Take what changes with the file; None while there is none."""
        try:
            status = os.stat(self.path)
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino, status.st_dev
