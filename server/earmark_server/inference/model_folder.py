"""A folder of model files: which are new or changed and complete, and which were removed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from earmark_server.inference.model_file import ModelFile

if TYPE_CHECKING:
    from collections.abc import Collection

SUFFIX = ".onnx"


class ModelFolder:
    """Watches a folder. All methods raise OSError, and change nothing, if the folder cannot be read.

    `served`: model files that are served anyway. Those in the folder do not count as its files.
    """

    def __init__(self, folder: str, served: Collection[str] = ()) -> None:
        self._folder = folder
        self._served = served
        self._files: dict[str, ModelFile] = {}

    def files(self) -> list[ModelFile]:
        """Return the model files, sorted by their paths, at the start."""
        self._files = {path: ModelFile(path) for path in self._paths()}
        return list(self._files.values())

    def check(self) -> tuple[list[ModelFile], list[ModelFile]]:
        """Return the files to load, new or changed and complete, and those that were removed."""
        present = self._paths()
        removed = [file for path, file in self._files.items() if path not in present]
        for each in removed:
            del self._files[each.path]
        due = []
        for path in present:
            file = self._files.get(path)
            if file is None:
                self._files[path] = ModelFile(path)
            elif file.is_due():
                due.append(file)
        return due, removed

    def _paths(self) -> list[str]:
        names = sorted(os.listdir(self._folder))
        paths = [
            os.path.join(self._folder, name)
            for name in names
            if name.endswith(SUFFIX) and not name.startswith(".")
        ]
        served = {os.path.realpath(path) for path in self._served}
        return [path for path in paths if not served or os.path.realpath(path) not in served]
