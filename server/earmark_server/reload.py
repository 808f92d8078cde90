"""Hot reload: detects that a file has changed, and reads it again."""

from __future__ import annotations

import asyncio
import logging
import os
import stat
import time
from typing import TYPE_CHECKING, Generic, TypeVar

from earmark_server.logs import log

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from os import PathLike

_LOGGER = logging.getLogger(__name__)

_CHECK_INTERVAL_S = 1.0
_MAX_BYTES = 256 << 20  # no model, certificate or list of tokens has more

MISSING_GRACE_S = 30.0
"""How long a file may be missing, because it is being replaced, before that has an effect."""

Value = TypeVar("Value")


class BadFileError(ValueError):
    """A file that the server was given cannot be used; the message says why."""


class ChangeDetector:
    """Detects that a file was replaced or written to.

    Create it before you read the file. A change while the file is being read then shows at the next check, so
    a file that was read half-written is read again when it is complete. Symbolic links are followed.

    token_file = ChangeDetector(path)
    tokens = read(path)
    ...
    if token_file.has_changed():
        tokens = read(path)
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = path
        self._signature = self._read_signature()

    def has_changed(self) -> bool:
        """Return whether the file has another identity, size or time than at the last check; cheap."""
        signature = self._read_signature()
        changed = signature != self._signature
        self._signature = signature
        return changed

    def _read_signature(self) -> tuple[int, ...] | None:
        """Return numbers that change whenever the file does; None if there is no file."""
        try:
            status = os.stat(self.path)
        except OSError:
            return None
        # `cp -p` sets the time of the content back. Only the system sets that of the last change (ctime).
        return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino, status.st_dev


class ReloadedFiles(Generic[Value]):
    """A value that is read from some files, and read again when one of them changes.

    `read` raises BadFileError for files that cannot be used. At the start, the error is raised here. Later
    it is logged, the last usable value stays, and the files are read again at every check until they can be
    used. If a file is missing for long, `value_if_missing` applies.
    """

    def __init__(
        self,
        paths: Sequence[str],
        read: Callable[[], Value],
        *,
        value_if_missing: Callable[[], Value] | None = None,
    ) -> None:
        self._paths = paths
        self._detectors = [ChangeDetector(path) for path in paths]
        self._read = read
        self._value_if_missing = value_if_missing
        self._missing_since_s: float | None = None
        self._missing_is_applied = False
        self._is_outdated = False
        self._logged_problem = ""
        self.is_usable = True
        """Whether the value is that of the files as they are now."""
        self.value = read()
        """The value of the files when they could last be used."""

    def reload_if_changed(self) -> bool:
        """Read the files again if one of them has changed; return whether there is a new value."""
        # All of them are checked, because a detector reports each change once.
        changes = [detector.has_changed() for detector in self._detectors]
        if any(changes):
            self._is_outdated = True
            self._logged_problem = ""
        if self._is_missing_for_long():
            assert self._value_if_missing is not None
            self.value = self._value_if_missing()
            log(_LOGGER, logging.ERROR, "files missing", files=",".join(self._paths), after_s=MISSING_GRACE_S)
            return True
        if not self._is_outdated:
            return False
        paths = ",".join(self._paths)
        try:
            self.value = self._read()
        except (BadFileError, OSError, MemoryError) as error:
            self.is_usable = False
            problem = problem_of(error)
            if problem != self._logged_problem:
                self._logged_problem = problem
                log(_LOGGER, logging.ERROR, "files rejected", files=paths, problem=problem)
            return False
        self._is_outdated = False
        self.is_usable = True
        log(_LOGGER, logging.INFO, "files reloaded", files=paths)
        return True

    def _is_missing_for_long(self) -> bool:
        """Return once, after the grace, that a file is missing, if there is a value for that."""
        if self._value_if_missing is None:
            return False
        if not any(_is_missing(path) for path in self._paths):
            self._missing_since_s = None
            self._missing_is_applied = False
            return False
        if self._missing_is_applied:
            return False
        if self._missing_since_s is None:
            self._missing_since_s = time.monotonic()
        self._missing_is_applied = time.monotonic() - self._missing_since_s >= MISSING_GRACE_S
        return self._missing_is_applied

    async def reload_forever(self, on_reload: Callable[[], None] | None = None) -> None:
        """Reload the files whenever they change, and call a function after each reload; never returns."""
        is_reloaded = False
        while True:
            await asyncio.sleep(_CHECK_INTERVAL_S)
            try:
                is_reloaded |= self.reload_if_changed()
                if is_reloaded and on_reload is not None:
                    on_reload()
                is_reloaded = False
            except Exception:
                # The next check may work.
                _LOGGER.exception("a check of files for changes has failed")


def _is_missing(path: str) -> bool:
    """Return whether there is no file; False if that is unknown, because the folder cannot be read."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def problem_of(error: BaseException) -> str:
    """Return the text of an error for the log; its type if it has no text."""
    return str(error) or type(error).__name__


def _open_at_once(path: str, flags: int) -> int:
    """Open a file, also a pipe that nothing writes to."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def read_file(path: str, name: str) -> bytes:
    """Return the content of a file; BadFileError, which begins with its `name`, if it cannot be read.

    Only regular files are read: a pipe could block the server for ever.
    """
    try:
        # A descriptor that is opened by other means stays open if it is that of a folder.
        with open(path, "rb", opener=_open_at_once) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise BadFileError(f"{name} {path} must be a regular file, not a pipe or a device.")
            # One that is too large is not read, because it is tried again at every check.
            content = b"" if status.st_size > _MAX_BYTES else file.read(_MAX_BYTES + 1)
            if max(status.st_size, len(content)) > _MAX_BYTES:
                raise BadFileError(f"{name} {path} has more than {_MAX_BYTES >> 20} MiB.")
            return content
    except OSError as error:
        raise BadFileError(f"{name} {path} cannot be read: {error.strerror}.") from error
