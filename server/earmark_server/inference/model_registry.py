"""The model registry: the models that the server offers, and hot reload when a model file changes.

When a model file is replaced, new streams use the new model, and open streams finish with the model that
they started with. The new file must be a new version of the same model: the same name and the same
keywords. Any other file, such as a truncated one, is rejected with a line in the log, and the server
keeps the old model. If the model's SHA-256 is pinned, every file but that one is rejected. A new file is
first validated in a process of its own, so that a model that crashes or hangs the runtime cannot take the
server down.

A replaced model is kept until its last stream has ended, and for `keep_replaced_s` after that, because
its resume tokens fit no other model.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from earmark_spotter import ModelError, SpotterModel
from earmark_spotter.model import check_sha256

from earmark_server.inference.model_sandbox import validate_model, warm_up
from earmark_server.logs import log
from earmark_server.reload import BadFileError, ChangeDetector, read_file
from earmark_server.status import CallError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence, Set

    from earmark_server.settings import Settings

_LOGGER = logging.getLogger(__name__)

_CHECK_INTERVAL_S = 1.0
"""How often the files are checked for changes. A file is read once it has not changed for that long."""


@dataclass(slots=True)
class _ModelFile:
    """A model file that may be replaced; `place`: the position of its model in `ModelRegistry.current`."""

    changes: ChangeDetector
    place: int
    has_changed: bool = False


@dataclass(slots=True)
class _ReplacedModel:
    """A model that new streams do not get, and the time of its last use on the event loop's clock."""

    model: SpotterModel
    last_used_s: float


class ModelRegistry:
    """The models by name. Create it on another thread, because loading blocks; use it on the event loop."""

    def __init__(self, settings: Settings) -> None:
        """Load the models of the settings and warm them up; ModelError for one that cannot be used."""
        # Imported now, so that the first resampled stream and the first file need not wait for them.
        import soundfile  # noqa: F401
        import soxr  # noqa: F401

        self._settings = settings
        # The files' state is recorded before they are read, so that a write meanwhile counts as a change.
        # The bundled model is not watched: it changes only with the package.
        self._files = [_ModelFile(ChangeDetector(path), place) for place, path in enumerate(settings.model)]
        self._replaced: list[_ReplacedModel] = []
        paths = settings.model or (None,)
        self._pins = settings.model_sha256 or (None,) * len(paths)
        self.current = [
            SpotterModel.load(path, threads=settings.threads, sha256=pin)
            for path, pin in zip(paths, self._pins, strict=True)
        ]
        """The models for new streams, the default one first."""
        names = [model.metadata.name for model in self.current]
        if len(set(names)) != len(names):
            raise ModelError(f"Two of the models have the same name: {', '.join(names)}. Remove one of them.")
        for model in self.current:
            warm_up(model)
            log(
                _LOGGER,
                logging.INFO,
                "model loaded",
                model=model.metadata.name,
                version=model.metadata.version,
                sha256=model.sha256,
            )

    def get(self, name: str, field: str) -> SpotterModel:
        """Return a model by its name, the default one for an empty name; CallError (UNKNOWN_MODEL) if none.

        `field`: the field of the request that has the name, for the error.
        """
        for model in self.current:
            if name in ("", model.metadata.name):
                return model
        known = ", ".join(model.metadata.name for model in self.current)
        message = f"This server has no model {name[:100]!a}. Its models are: {known}."
        raise CallError("UNKNOWN_MODEL", message, field=field)

    def versions(self, name: str, field: str) -> Sequence[SpotterModel]:
        """Return a model and the ones that it replaced, newest first: a broken stream may resume on any."""
        newest = self.get(name, field)
        earlier = [one.model for one in self._replaced if one.model.metadata.name == newest.metadata.name]
        return [newest, *reversed(earlier)]

    async def reload_changed(self, in_use: Callable[[], Set[SpotterModel]]) -> None:
        """Reload files that change, until cancelled; `in_use` returns the models of all open calls."""
        while self._files:
            await asyncio.sleep(_CHECK_INTERVAL_S)
            if self._replaced:
                self._unload_unused(in_use())
            for file in self._files:
                if file.changes.has_changed():
                    file.has_changed = True  # it may still be incomplete
                elif file.has_changed:
                    file.has_changed = False
                    await self._replace(file)

    def _unload_unused(self, used: Set[SpotterModel]) -> None:
        now_s = asyncio.get_running_loop().time()
        for one in list(self._replaced):
            if one.model in used:
                one.last_used_s = now_s
            elif now_s - one.last_used_s > self._settings.keep_replaced_s:
                self._replaced.remove(one)
                meta, sha256 = one.model.metadata, one.model.sha256
                log(_LOGGER, logging.INFO, "replaced model unloaded", model=meta.name, sha256=sha256)

    async def _replace(self, file: _ModelFile) -> None:
        old = self.current[file.place]
        try:
            new = await self._load(Path(file.changes.path), old, self._pins[file.place])
        except (ModelError, BadFileError, OSError, MemoryError) as error:
            log(
                _LOGGER,
                logging.ERROR,
                "new model rejected",
                path=file.changes.path,
                problem=str(error) or type(error).__name__,
                keeps=old.sha256,
            )
            return
        if new is None:
            return
        self.current[file.place] = new
        self._replaced.append(_ReplacedModel(old, asyncio.get_running_loop().time()))
        log(
            _LOGGER,
            logging.INFO,
            "model replaced",
            model=new.metadata.name,
            version=new.metadata.version,
            sha256=new.sha256,
            replaces=old.sha256,
        )

    async def _load(self, path: Path, old: SpotterModel, pin: str | None) -> SpotterModel | None:
        """Load the file that replaces a model; None if it is the same, ModelError if it cannot replace it."""
        content = await asyncio.to_thread(read_file, str(path), "model")
        # Before any process parses the content.
        check_sha256(content, pin)
        await validate_model(content)
        new = await asyncio.to_thread(SpotterModel, content, threads=self._settings.threads)
        if new.sha256 == old.sha256:
            return None
        if new.metadata.name != old.metadata.name:
            raise ModelError(
                f"The new file is the model {new.metadata.name}, but this server was started with "
                f"{old.metadata.name}. Restart the server to change the model."
            )
        if set(new.metadata.keywords) != set(old.metadata.keywords):
            raise ModelError(
                f"The keywords of the new file are {', '.join(new.metadata.keywords)}, but the current model "
                f"has {', '.join(old.metadata.keywords)}. Restart the server to change the keywords."
            )
        await asyncio.to_thread(warm_up, new)
        return new
