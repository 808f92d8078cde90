"""The names of the models of a folder: which file has which one, also while files exchange their models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from earmark_spotter import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from earmark_spotter import SpotterModel

    from earmark_server.inference.model_file import ModelFile


class NameTakenError(ModelError):
    """Two files have models of the same name."""

    def __init__(self, path: str, name: str, other: str) -> None:
        super().__init__(
            f"{path} has the name {name}, as {other} has. Names must differ: remove one of the files, or "
            "train one of the models again with another --name."
        )


class ModelNames:
    """The served models of a folder, each with a name of its own.

    The first file with a name has it. A second one is rejected, and loaded again once the name is free. If
    the first file has changed since, the second one waits until it is known which model that file has now.
    So models stay served while their files are renamed in a circle.

    `fixed`: the path of the file that has a name in any case, by name. The functions are called for a model
    that is now served or is not served any more, and for a file that is rejected.
    """

    def __init__(
        self,
        fixed: Mapping[str, str],
        *,
        on_served: Callable[[SpotterModel], None],
        on_retired: Callable[[SpotterModel], None],
        on_rejected: Callable[[ModelFile, NameTakenError], None],
    ) -> None:
        self.served: dict[ModelFile, SpotterModel] = {}
        """The served models. A file that has changed and cannot be used keeps its old one."""
        self._fixed = fixed
        self._on_served = on_served
        self._on_retired = on_retired
        self._on_rejected = on_rejected
        self._waiting: dict[ModelFile, SpotterModel] = {}
        self._rejected: dict[ModelFile, str] = {}  # the names

    def check(self, file: ModelFile, model: SpotterModel) -> None:
        """Raise NameTakenError if another file has the name of this model for certain."""
        name = model.metadata.name
        other = self._fixed.get(name)
        holder = self._holder(file, model)
        if holder is not None and not (holder.is_outdated or holder.is_rejected or holder in self._waiting):
            other = holder.path
        if other is not None:
            self._rejected[file] = name
            raise NameTakenError(file.path, name, other)

    def add(self, file: ModelFile, model: SpotterModel) -> None:
        """Add the model that a file has now; it is served at once, or when its name is settled."""
        self._rejected.pop(file, None)
        self._waiting[file] = model
        self.settle()

    def reject(self, file: ModelFile) -> None:
        """Record that a file cannot be used: another one may have the name of its old model."""
        if file in self.served:
            self._retry(self.served[file])

    def remove(self, file: ModelFile) -> None:
        """Retire the model of a file that was removed."""
        self._waiting.pop(file, None)
        self._rejected.pop(file, None)
        self._retire(file)

    def settle(self) -> None:
        """Serve the waiting models whose names are settled; call it after every check of the files."""
        for file, model in self._waiting.copy().items():
            if file.is_outdated:
                del self._waiting[file]  # It has changed again, and will be loaded again.
            elif self._holder(file, model) is None:
                self._serve(file, model)
        holders = [self._holder(file, model) for file, model in self._waiting.items()]
        if any(holder is not None and holder.is_outdated and not holder.is_rejected for holder in holders):
            return
        for file, model in self._waiting.copy().items():
            try:
                self.check(file, model)
            except NameTakenError as error:
                del self._waiting[file]
                self._on_rejected(file, error)
            else:
                self._serve(file, model)

    def _holder(self, file: ModelFile, model: SpotterModel) -> ModelFile | None:
        """Return the other file whose served model has the name of a model."""
        name = model.metadata.name
        return next((f for f, m in self.served.items() if f is not file and m.metadata.name == name), None)

    def _serve(self, file: ModelFile, model: SpotterModel) -> None:
        del self._waiting[file]
        old, holder = self.served.get(file), self._holder(file, model)
        if old is not None and old.sha256 == model.sha256:
            return
        self._retire(file)
        if holder is not None:
            self._retire(holder)
        self.served[file] = model
        self._on_served(model)

    def _retire(self, file: ModelFile) -> None:
        model = self.served.pop(file, None)
        if model is not None:
            self._retry(model)
            self._on_retired(model)

    def _retry(self, model: SpotterModel) -> None:
        """Load the files again that were rejected because of the name of a model."""
        for file, name in self._rejected.copy().items():
            if name == model.metadata.name:
                del self._rejected[file]
                file.is_outdated = True
