"""Files that may be replaced while the server runs: its certificates, its tokens, its models."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING, Generic, TypeVar

from earmark_server.logs import log

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from os import PathLike

_LOGGER = logging.getLogger(__name__)

_LOOK_EVERY_S = 1.0

Value = TypeVar("Value")


class BadFileError(ValueError):
    """A file that the server was given says nothing that it can use; the message says what is wrong."""


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


class Followed(Generic[Value]):
    """What some files say together, read anew when one of them changes.

    `read` raises BadFileError for what it cannot use: at the start that comes out of here; later it
    is logged, and what the files said before stays in force.
    """

    def __init__(self, paths: Sequence[str], read: Callable[[], Value]) -> None:
        self._files = [Watched(path) for path in paths]
        self._read = read
        self.value = read()
        """What the files said when they could last be used."""

    def look(self) -> bool:
        """Whether the value is another one now."""
        # Every one of them is looked at.
        if not sum(file.changed() for file in self._files):
            return False
        paths = ",".join(str(file.path) for file in self._files)
        try:
            self.value = self._read()
        except BadFileError as error:
            log(_LOGGER, logging.ERROR, "files refused", files=paths, problem=str(error))
            return False
        log(_LOGGER, logging.INFO, "files reloaded", files=paths)
        return True

    async def follow(self, then: Callable[[], None]) -> None:
        """Look for good, and do something whenever the value is another one."""
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            if self.look():
                then()


def read_file(path: str, what: str) -> bytes:
    """Read a whole file; BadFileError, which calls it `what`, where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise BadFileError(f"The {what} file {path} cannot be read: {error.strerror}.") from error
