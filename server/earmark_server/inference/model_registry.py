"""The models that are served, and how one is replaced while the server runs.

A model file that was written anew is taken over for new streams; those that are open end on the
model they began with. It must be the same model, trained again: of the same name, with the same
keywords. A file that is anything else, or cut off, or no model at all, is refused with a line in
the log, and the server goes on with what it has; so is every other file where the SHA-256 of the model
is pinned. A new file is loaded in a process of its own
first: one that crashes the runtime or never ends its first run does not take the server along.

The model that was replaced is kept until its last stream has ended, and for `keep_replaced_s`
after that: its resume tokens fit no other one.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from earmark_spotter import ModelError, SpotterModel
from earmark_spotter.model import check_sha256

from earmark_server.credentials.reload import Watched
from earmark_server.inference.model_sandbox import try_model, warm_up
from earmark_server.logs import log
from earmark_server.status import CallError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence, Set

    from earmark_server.settings import Settings

_LOGGER = logging.getLogger(__name__)

_LOOK_S = 1.0
"""How often the files are looked at; one is read when it was left alone for that long."""


@dataclass(slots=True)
class _File:
    """A model file that may be replaced: what came of it, and whether it was written to a moment ago."""

    watched: Watched
    place: int
    is_new: bool = False


@dataclass(slots=True)
class _Replaced:
    """A model that new streams do not get, and until when it was in use, on the loop's clock."""

    model: SpotterModel
    used_s: float


class Models:
    """What is served, by name; to be made on a thread of its own, and used on the event loop."""

    def __init__(self, settings: Settings) -> None:
        """Load the models of the settings and warm them up; ModelError for one that cannot be used."""
        # Also what the first resampled stream and the first file would otherwise wait for.
        import soundfile  # noqa: F401
        import soxr  # noqa: F401

        self._settings = settings
        # Looked at before they are read: what is written meanwhile shows later. The model that comes with
        # Earmark is replaced with Earmark.
        self._files = [_File(Watched(path), place) for place, path in enumerate(settings.model)]
        self._replaced: list[_Replaced] = []
        paths = settings.model or (None,)
        self._pins = settings.model_sha256 or (None,) * len(paths)
        self.current = [
            SpotterModel.load(path, threads=settings.threads, sha256=pin)
            for path, pin in zip(paths, self._pins, strict=True)
        ]
        """The models for new streams, the default one first."""
        names = [model.metadata.name for model in self.current]
        if len(set(names)) != len(names):
            raise ModelError(f"Two of the models have the same name: {', '.join(names)}. Leave one out.")
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

    def find(self, name: str, field: str) -> SpotterModel:
        """Find a model by its name; empty: the default one. CallError (UNKNOWN_MODEL) if there is none."""
        for model in self.current:
            if name in ("", model.metadata.name):
                return model
        known = ", ".join(model.metadata.name for model in self.current)
        raise CallError("UNKNOWN_MODEL", f"There is no model {name[:100]!a} here, only {known}.", field=field)

    def versions(self, name: str, field: str) -> Sequence[SpotterModel]:
        """Find a model and those that it has replaced, the newest first: where a broken stream can go on."""
        newest = self.find(name, field)
        earlier = [one.model for one in self._replaced if one.model.metadata.name == newest.metadata.name]
        return [newest, *reversed(earlier)]

    async def follow(self, in_use: Callable[[], Set[SpotterModel]]) -> None:
        """Take over what is written anew, for ever; `in_use` tells the models that calls listen with."""
        while self._files:
            await asyncio.sleep(_LOOK_S)
            if self._replaced:
                self._let_go(in_use())
            for file in self._files:
                if file.watched.changed():
                    file.is_new = True  # It may not be whole yet.
                elif file.is_new:
                    file.is_new = False
                    await self._replace(file)

    def _let_go(self, used: Set[SpotterModel]) -> None:
        now_s = asyncio.get_running_loop().time()
        for one in list(self._replaced):
            if one.model in used:
                one.used_s = now_s
            elif now_s - one.used_s > self._settings.keep_replaced_s:
                self._replaced.remove(one)
                meta, sha256 = one.model.metadata, one.model.sha256
                log(_LOGGER, logging.INFO, "replaced model let go", model=meta.name, sha256=sha256)

    async def _replace(self, file: _File) -> None:
        old = self.current[file.place]
        try:
            new = await self._load(Path(file.watched.path), old, self._pins[file.place])
        except (ModelError, OSError, MemoryError) as error:
            log(
                _LOGGER,
                logging.ERROR,
                "new model refused",
                path=file.watched.path,
                problem=str(error) or type(error).__name__,
                keeps=old.sha256,
            )
            return
        if new is None:
            return
        self.current[file.place] = new
        self._replaced.append(_Replaced(old, asyncio.get_running_loop().time()))
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
        """Load what replaces a model; None if it is the same, ModelError if it cannot replace it."""
        content = await asyncio.to_thread(path.read_bytes)
        # Before anything of it is parsed, in whatever process.
        check_sha256(content, pin)
        await try_model(content)
        new = await asyncio.to_thread(SpotterModel, content, threads=self._settings.threads)
        if new.sha256 == old.sha256:
            return None
        if new.metadata.name != old.metadata.name:
            raise ModelError(
                f"It is the model {new.metadata.name}, and not {old.metadata.name}: "
                "restart the server to serve it."
            )
        if set(new.metadata.keywords) != set(old.metadata.keywords):
            raise ModelError(
                f"Its keywords are {', '.join(new.metadata.keywords)}, and not "
                f"{', '.join(old.metadata.keywords)}: restart the server to serve it."
            )
        await asyncio.to_thread(warm_up, new)
        return new
