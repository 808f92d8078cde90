"""A model file that may be replaced while the server runs."""

from __future__ import annotations

from earmark_spotter import ModelError

from earmark_server.reload import BadFileError, ChangeDetector, problem_of

_TEMPORARY = (BadFileError, OSError, MemoryError)

UNUSABLE = (ModelError, *_TEMPORARY)
"""The errors of a file that cannot be used."""


class ModelFile:
    """Watches one file. It counts as complete once it has not changed between two checks."""

    def __init__(self, path: str) -> None:
        """Create it before the file is read, so that a write meanwhile counts as a change."""
        self.path = path
        self.is_outdated = True
        """Whether the file is to be loaded."""
        self._changes = ChangeDetector(path)
        self._problem = ""

    def is_due(self) -> bool:
        """Check the file; return whether to load it now, because it is outdated and complete."""
        if self._changes.has_changed():
            self.is_outdated = True
            self._problem = ""
            return False
        return self.is_outdated

    @property
    def is_rejected(self) -> bool:
        """Whether the file as it is now could not be used."""
        return bool(self._problem)

    def accept(self) -> None:
        """Record that the file was loaded."""
        self.is_outdated = False
        self._problem = ""

    def reject(self, error: BaseException) -> str | None:
        """Record that the file could not be used; return the problem, or None if it was returned before.

        The file is due again at the next check, unless the error is a ModelError: then its content is wrong.
        """
        self.is_outdated = isinstance(error, _TEMPORARY)
        problem = problem_of(error)
        if problem == self._problem:
            return None
        self._problem = problem
        return problem
