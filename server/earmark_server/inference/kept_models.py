"""Kept models: copies of model files on disk, on which broken streams resume after a reload or a restart.

A resume token fits one model file only. So a server copies every model that it loads to a folder. The other
workers and the next process find the model there after its own file was replaced. The name of a copy is its
SHA-256, so several servers may use one folder.

The modification time of a copy is the time at which it expires. Servers that use the model keep moving it
forward. Nothing else states it, so that a server that was killed leaves nothing to repair.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import stat
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from earmark_server.logs import log
from earmark_server.reload import BadFileError, read_file

if TYPE_CHECKING:
    from collections.abc import Collection

_LOGGER = logging.getLogger(__name__)

EXTEND_INTERVAL_S = 15.0
"""How often to call `extend`. Copies are kept for two intervals more than asked, for a delayed call."""

FOLDER_NAME = ".earmark-kept"
"""The folder beside a model file in which copies are kept, if no other folder is given."""

_MAX_COPIES = 32
_MAX_BYTES = 256 << 20

_SUFFIX = ".onnx"
_COPY = re.compile(r"[0-9a-f]{64}\.onnx")
_PARTIAL_PREFIX = ".partial-"
_PARTIAL_LIFE_S = 60.0
"""A file that is still incomplete after this time was left behind by a process that was killed."""


@dataclass(frozen=True, slots=True)
class _Copy:
    """A copy as the folder lists it; `expires_s`: in seconds since the epoch."""

    sha256: str
    path: Path
    size_bytes: int
    expires_s: float


class KeptModels:
    """The copies in one folder, which is private to the user of the process. All methods block."""

    def __init__(self, folder: Path, keep_s: float) -> None:
        """Create the folder if necessary; BadFileError if it cannot be used.

        `keep_s`: how long to keep a copy after the last call of `keep` or `extend` for it.
        """
        self.folder = folder
        self._keep_s = keep_s
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = folder.lstat()
        except OSError as error:
            raise BadFileError(f"The folder {folder} cannot be created: {error.strerror}.") from error
        # A user who can write to the folder can choose the model on which a stream resumes.
        if not stat.S_ISDIR(status.st_mode) or (os.name == "posix" and not _is_private(status)):
            raise BadFileError(
                f"The folder {folder} must belong to the user of this process, and no other user may be able "
                "to write to it."
            )
        if not os.access(folder, os.W_OK | os.X_OK):
            raise BadFileError(f"The folder {folder} cannot be written to.")

    def keep(self, content: bytes) -> None:
        """Copy a model file to the folder, unless an undamaged copy is there; OSError if that fails."""
        sha256 = hashlib.sha256(content).hexdigest()
        path = self._path(sha256)
        with contextlib.suppress(BadFileError):
            if read_file(str(path), "The kept model file") == content:
                self.extend([sha256])
                return
        descriptor, partial = tempfile.mkstemp(prefix=_PARTIAL_PREFIX, dir=self.folder)  # mode 0600
        try:
            with open(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            self._set_expiry(partial)
            os.replace(partial, path)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(partial)
            raise

    def extend(self, digests: Collection[str]) -> None:
        """Move the expiry of copies forward, because their models are in use; missing ones are skipped."""
        for sha256 in digests:
            with contextlib.suppress(OSError):
                self._set_expiry(self._path(sha256))

    def digests(self) -> list[str]:
        """Return the SHA-256 of the copies that have not expired, those that expire last first."""
        now_s = time.time()
        return [copy.sha256 for copy in self._copies() if copy.expires_s > now_s]

    def read(self, sha256: str) -> bytes:
        """Return the content of a copy; BadFileError if it is missing or damaged."""
        path = self._path(sha256)
        content = read_file(str(path), "The kept model file")
        if hashlib.sha256(content).hexdigest() != sha256:
            raise BadFileError(f"The kept model file {path} is damaged: its SHA-256 is not its name.")
        return content

    def remove_expired(self, in_use: Collection[str]) -> None:
        """Remove copies that have expired, and those that expire first while there are too many or too long.

        `in_use`: the SHA-256 of models whose copies stay in any case, and are not counted.
        """
        now_s = time.time()
        count = size_bytes = 0
        for copy in self._copies():
            if copy.sha256 in in_use:
                continue
            count += 1
            size_bytes += copy.size_bytes
            has_expired = copy.expires_s <= now_s
            if has_expired or count > _MAX_COPIES or size_bytes > _MAX_BYTES:
                count -= 1
                size_bytes -= copy.size_bytes
                with contextlib.suppress(OSError):
                    copy.path.unlink()
                    reason = "expired" if has_expired else "too many"
                    log(_LOGGER, logging.INFO, "kept model removed", sha256=copy.sha256, reason=reason)
        self._remove_partial(now_s)

    def _path(self, sha256: str) -> Path:
        return self.folder / f"{sha256}{_SUFFIX}"

    def _set_expiry(self, path: str | Path) -> None:
        expires_s = time.time() + self._keep_s + 2 * EXTEND_INTERVAL_S
        os.utime(path, (expires_s, expires_s))

    def _copies(self) -> list[_Copy]:
        """Return all copies, those that expire last first."""
        copies = []
        with contextlib.suppress(OSError), os.scandir(self.folder) as entries:
            for entry in entries:
                if not _COPY.fullmatch(entry.name):
                    continue
                with contextlib.suppress(OSError):
                    status = entry.stat(follow_symlinks=False)
                    sha256 = entry.name.removesuffix(_SUFFIX)
                    copies.append(_Copy(sha256, Path(entry.path), status.st_size, status.st_mtime))
        return sorted(copies, key=lambda copy: copy.expires_s, reverse=True)

    def _remove_partial(self, now_s: float) -> None:
        names: list[str] = []
        with contextlib.suppress(OSError):
            names = os.listdir(self.folder)
        for name in names:
            if not name.startswith(_PARTIAL_PREFIX):
                continue
            path = self.folder / name
            with contextlib.suppress(OSError):
                # Not its modification time, which may be an expiry.
                if now_s - path.stat().st_ctime > _PARTIAL_LIFE_S:
                    path.unlink()


def _is_private(status: os.stat_result) -> bool:
    return status.st_uid == os.getuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
