"""A folder of model files: which are new or changed and complete, and which were removed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from earmark_server.reload import ChangeDetector

SUFFIX = ".onnx"


@dataclass(slots=True)
class _WatchedFile:
    changes: ChangeDetector
    has_changed: bool


class ModelFolder:
    """Watches a folder. A file counts as complete once it has not changed between two checks."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)
        self._files: dict[str, _WatchedFile] = {}

    def files(self) -> list[str]:
        """Return the paths of the model files, sorted; none if the folder cannot be read."""
        try:
            return sorted(str(p) for p in self._folder.glob(f"*{SUFFIX}") if not p.name.startswith("."))
        except OSError:
            return []

    def watch(self, path: str) -> None:
        """Watch a file that is read now; a later change of it is reported."""
        self._files[path] = _WatchedFile(ChangeDetector(path), has_changed=False)

    def check(self) -> tuple[list[str], list[str]]:
        """Return the files to load, new or changed and complete, and those that were removed."""
        present = self.files()
        removed = [path for path in self._files if path not in present]
        for path in removed:
            del self._files[path]
        complete = []
        for path in present:
            file = self._files.get(path)
            if file is None:
                self._files[path] = _WatchedFile(ChangeDetector(path), has_changed=True)
            elif file.changes.has_changed():
                file.has_changed = True  # it may still be incomplete
            elif file.has_changed:
                file.has_changed = False
                complete.append(path)
        return complete, removed
