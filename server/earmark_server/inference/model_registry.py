"""The model registry: the models that the server offers, and hot reload when a model file changes.

When a model file is replaced, new streams use the new model, and open streams finish with the model that
they started with. The new file must be a new version of the same model: the same name and the same
keywords. Any other file, such as a truncated one, is rejected with a line in the log, and the server
keeps the old model. A file that cannot be read is tried again at the next check. If the model's SHA-256 is
pinned, every file but that one is rejected. A new file is first validated in a separate process, so that a
model that crashes or hangs the runtime cannot take the server down.

Every model file in the folder `model_dir` is served too. There a new file is a new model, and a changed
file may be any model. A file that cannot be used is logged. The model of a removed file goes as a replaced
one does. While the folder cannot be read, its models stay. Its files are validated at the start, too, so that
none of them can keep the server from starting.

A replaced model is kept until its last stream has ended, and for `keep_replaced_s` after that, because
its resume tokens fit no other model. Every model is also kept on disk (kept_models.py), so that a stream
resumes in another worker or in the next process, which read the copy when a token needs it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import math
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from earmark_spotter import ModelError, SpotterModel
from earmark_spotter.model import check_sha256

from earmark_server.inference.kept_models import EXTEND_INTERVAL_S, FOLDER_NAME, KeptModels
from earmark_server.inference.model_file import UNUSABLE, ModelFile
from earmark_server.inference.model_folder import SUFFIX, ModelFolder
from earmark_server.inference.model_memory import ModelMemory
from earmark_server.inference.model_names import ModelNames, NameTakenError
from earmark_server.inference.model_sandbox import ModelSandbox, validate_model, warm_up
from earmark_server.logs import log
from earmark_server.reload import BadFileError, problem_of, read_file
from earmark_server.status import CallError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Set

    from earmark_server.settings import Settings

_LOGGER = logging.getLogger(__name__)

_CHECK_INTERVAL_S = 1.0
"""How often the files are checked for changes. A file is read once it has not changed for that long."""

_START_TIMEOUT_S = 20
"""A model of the folder that takes longer to validate is left out at the start, and validated after it."""

_RETRY_COPY_S = 15.0
"""Pause until a copy that could not be read is read again: a stream that resumes may need it at any time."""

_MAX_UNUSED = 8
"""Replaced models in memory that no stream uses. The others are only on disk."""


@dataclass(slots=True)
class _ReplacedModel:
    """A model that new streams do not get, and the time of its last use on the event loop's clock."""

    model: SpotterModel
    last_used_s: float


class ModelRegistry:
    """The models by name. Create it on another thread, because loading blocks; use it on the event loop."""

    def __init__(self, settings: Settings) -> None:
        """Load the models of the settings and warm them up.

        Raises ModelError for one that cannot be used, and BadFileError if `state_dir` cannot be used.
        """
        # Imported now, so that the first resampled stream and the first file need not wait for them.
        import soundfile  # noqa: F401
        import soxr  # noqa: F401

        self._settings = settings
        # In the order of the models of the settings. The bundled model changes only with the package.
        self._files = [ModelFile(path) for path in settings.model]
        self._memory = ModelMemory(settings.threads)
        self._kept = _open_kept(settings)
        self._replaced: list[_ReplacedModel] = []
        self._not_kept: dict[str | None, str] = {}  # the problems by path
        self._rejected_copies: dict[str, tuple[str, float]] = {}  # the problem, and when to try again
        self._extended_s = 0.0
        self._loading_kept = asyncio.Lock()
        paths = settings.model or (None,)
        self._pins = settings.model_sha256 or (None,) * len(paths)
        self._of_settings = [
            SpotterModel.load(path, threads=settings.threads, sha256=pin)
            for path, pin in zip(paths, self._pins, strict=True)
        ]
        self._folder = ModelFolder(settings.model_dir, settings.model) if settings.model_dir else None
        self._folder_problem = ""
        self._last_validated = ""  # the path of a file of the folder
        found: dict[str, str] = {}
        for path, model in zip(paths, self._of_settings, strict=True):
            name = model.metadata.name
            if name in found:
                raise NameTakenError(str(path), name, found[name])
            found[name] = path or "the bundled model"
        self._names = ModelNames(
            found, on_served=_log_loaded, on_retired=self._retire, on_rejected=self._reject_of_folder
        )
        for model in self._of_settings:
            warm_up(model)
            _log_loaded(model)
        for file in self._files:
            file.accept()
        self._load_folder()
        for path, model in zip(paths, self._of_settings, strict=True):
            content = SpotterModel.read(path)
            self._memory.add(model, content)
            if hashlib.sha256(content).hexdigest() == model.sha256:  # else it was just replaced
                self._keep(content, path)
        for kept in self._kept.values():
            kept.remove_expired({model.sha256 for model in self.current})

    @property
    def current(self) -> list[SpotterModel]:
        """The models for new streams, the default one first."""
        return [*self._of_settings, *self._names.served.values()]

    @property
    def file_bytes(self) -> int:
        """The sum of the lengths of the files of all models in memory; any thread may read it."""
        return self._memory.file_bytes

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

    async def replaced(self, name: str) -> AsyncIterator[SpotterModel]:
        """Yield the models with a name on which a broken stream may have begun, except the current one.

        Those in memory come first, newest first. Then those that other processes have kept are loaded.
        `name`: as the stream states it; empty for any.
        """
        tried: set[SpotterModel] = set()
        for with_kept in (False, True):
            if with_kept:
                await self._load_kept()
            for one in reversed(self._replaced.copy()):
                if one.model not in tried and name in ("", one.model.metadata.name):
                    tried.add(one.model)
                    yield one.model

    async def reload_changed(self, in_use: Callable[[], Set[SpotterModel]]) -> None:
        """Reload files that change, until cancelled; `in_use` returns the models of all open calls."""
        clock = asyncio.get_running_loop().time
        checked_s = clock()
        while self._files or self._kept or self._folder:
            await asyncio.sleep(max(0.0, checked_s + _CHECK_INTERVAL_S - clock()))
            checked_s = clock()
            try:
                await self._check(in_use)
            except Exception:
                # The next check may work.
                _LOGGER.exception("a check of the model files has failed")

    async def _check(self, in_use: Callable[[], Set[SpotterModel]]) -> None:
        now_s = asyncio.get_running_loop().time()
        self._unload_unused(in_use(), now_s)
        if now_s - self._extended_s >= EXTEND_INTERVAL_S:
            self._extended_s = now_s
            digests = {model.sha256 for model in (*self.current, *in_use())}
            await asyncio.to_thread(self._extend_kept, digests)
        for place, file in enumerate(self._files):
            if file.is_due():
                await self._replace(file, place)
        await self._check_folder()

    def _unload_unused(self, used: Set[SpotterModel], now_s: float) -> None:
        unused_count = 0
        for one in reversed(self._replaced.copy()):
            if one.model in used:
                one.last_used_s = now_s
                continue
            unused_count += 1
            if now_s - one.last_used_s > self._settings.keep_replaced_s or unused_count > _MAX_UNUSED:
                self._replaced.remove(one)
                meta, sha256 = one.model.metadata, one.model.sha256
                log(_LOGGER, logging.INFO, "replaced model unloaded", model=meta.name, sha256=sha256)

    # Copies on disk. These methods block, except for the first.

    async def _load_kept(self) -> None:
        """Load the models that were kept on disk and are not in memory."""
        async with self._loading_kept:
            known = {model.sha256 for model in self.current} | {one.model.sha256 for one in self._replaced}
            loaded = await asyncio.to_thread(self._read_kept, known)
            now_s = asyncio.get_running_loop().time()
            self._replaced += [_ReplacedModel(model, now_s) for model in loaded]

    def _read_kept(self, known: Set[str]) -> list[SpotterModel]:
        loaded: list[SpotterModel] = []
        for kept in self._kept.values():
            for sha256 in kept.digests():
                logged, retry_s = self._rejected_copies.get(sha256, ("", 0.0))
                if sha256 in known or time.monotonic() < retry_s or len(loaded) >= _MAX_UNUSED:
                    continue
                try:
                    # A server has run this model, so it needs no sandbox.
                    model = self._memory.load(kept.read(sha256))
                    warm_up(model)
                except UNUSABLE as error:
                    # The content of a copy that can be read never changes.
                    retry_s = math.inf if isinstance(error, ModelError) else time.monotonic() + _RETRY_COPY_S
                    problem = problem_of(error)
                    self._rejected_copies[sha256] = problem, retry_s
                    if problem != logged:
                        log(_LOGGER, logging.ERROR, "kept model rejected", sha256=sha256, problem=problem)
                    continue
                loaded.append(model)
                log(
                    _LOGGER,
                    logging.INFO,
                    "kept model loaded",
                    model=model.metadata.name,
                    version=model.metadata.version,
                    sha256=sha256,
                )
        return loaded

    def _keep(self, content: bytes, path: str | None) -> None:
        """Keep a copy of the content of a model file; a failure is logged, and tried again later."""
        folder = _kept_folder(self._settings, path)
        if folder not in self._kept:
            return
        try:
            self._kept[folder].keep(content)
        except OSError as error:
            problem = f"{folder}: {error.strerror}."
            if problem != self._not_kept.get(path):
                _log_not_kept(problem)
            self._not_kept[path] = problem
        else:
            self._not_kept.pop(path, None)

    def _extend_kept(self, digests: Set[str]) -> None:
        self._keep_missing(digests)
        for kept in self._kept.values():
            kept.extend(digests)
            kept.remove_expired(digests)

    def _keep_missing(self, digests: Set[str]) -> None:
        """Keep the copies that could not be kept, if their files still have the models that are in use."""
        for path in tuple(self._not_kept):
            with contextlib.suppress(ModelError, BadFileError):
                content = SpotterModel.read() if path is None else read_file(path, "The model file")
                if hashlib.sha256(content).hexdigest() in digests:
                    self._keep(content, path)

    async def _replace(self, file: ModelFile, place: int) -> None:
        old = self._of_settings[place]
        try:
            new = await self._load(file.path, old, self._pins[place])
        except UNUSABLE as error:
            problem = file.reject(error)
            if problem:
                log(
                    _LOGGER,
                    logging.ERROR,
                    "new model rejected",
                    path=file.path,
                    problem=problem,
                    keeps=old.sha256,
                )
            return
        file.accept()
        if new is None:
            return
        self._of_settings[place] = new
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

    async def _load(self, path: str, old: SpotterModel, pin: str | None) -> SpotterModel | None:
        """Load the file that replaces a model; None if it is the same, ModelError if it cannot replace it."""
        content = await asyncio.to_thread(read_file, path, "The model file")
        # Before any process parses the content.
        check_sha256(content, pin)
        await validate_model(content)
        new = await asyncio.to_thread(self._memory.load, content)
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
        # Before a stream gets a token of it.
        await asyncio.to_thread(self._keep, content, path)
        return new

    # The files of `model_dir`.

    def _load_folder(self) -> None:
        """Load the files of the folder at the start; log those that cannot be used. Blocks."""
        if self._folder is None:
            return
        try:
            files = self._folder.files()
        except OSError as error:
            self._log_unreadable_folder(error)
            return
        if not files:
            return
        try:
            sandbox = ModelSandbox()
        except OSError as error:
            for file in files:
                self._reject_of_folder(file, error)
            return
        with sandbox, ThreadPoolExecutor(1) as validating:

            def validate(file: ModelFile) -> bytes | Exception:
                try:
                    content = read_file(file.path, "The model file")
                    sandbox.validate(content, _START_TIMEOUT_S)
                except UNUSABLE as error:
                    return error
                return content

            # The sandbox validates the next models while this thread loads one.
            for file, validated in zip(files, validating.map(validate, files), strict=True):
                try:
                    if isinstance(validated, Exception):
                        raise validated
                    model = self._load_of_folder(file, validated)
                except UNUSABLE as error:
                    self._reject_of_folder(file, error)
                else:
                    self._names.add(file, model)

    def _load_of_folder(self, file: ModelFile, content: bytes) -> SpotterModel:
        """Load a validated file of the folder; NameTakenError if it has the name of another one. Blocks."""
        model = self._memory.load(content)
        self._names.check(file, model)
        warm_up(model)
        # Before a stream gets a token of it.
        self._keep(content, file.path)
        file.accept()
        return model

    async def _check_folder(self) -> None:
        if self._folder is None:
            return
        try:
            due, removed = await asyncio.to_thread(self._folder.check)
        except OSError as error:
            self._log_unreadable_folder(error)
            return
        self._folder_problem = ""
        for file in removed:
            self._names.remove(file)
        self._names.settle()
        # One at a time: to validate hundreds takes minutes, in which other files change and copies expire.
        for file in sorted(due, key=lambda each: each.path <= self._last_validated):
            try:
                content = await asyncio.to_thread(read_file, file.path, "The model file")
            except UNUSABLE as error:
                self._reject_of_folder(file, error)
                continue
            self._last_validated = file.path
            await self._reload_of_folder(file, content)
            return

    def _log_unreadable_folder(self, error: OSError) -> None:
        """Log once that the folder cannot be read. That says nothing about its files."""
        problem = error.strerror or str(error)
        if problem != self._folder_problem:
            self._folder_problem = problem
            folder = self._settings.model_dir
            log(_LOGGER, logging.ERROR, "model folder cannot be read", path=folder, problem=problem)

    def _reject_of_folder(self, file: ModelFile, error: BaseException) -> None:
        problem = file.reject(error)
        if problem:
            self._names.reject(file)
            log(_LOGGER, logging.ERROR, "model of the folder rejected", path=file.path, problem=problem)

    async def _reload_of_folder(self, file: ModelFile, content: bytes) -> None:
        """Load a file of the folder that is new or has changed; keep the old model if it cannot be used."""
        try:
            await validate_model(content)
            model = await asyncio.to_thread(self._load_of_folder, file, content)
        except UNUSABLE as error:
            self._reject_of_folder(file, error)
        else:
            self._names.add(file, model)

    def _retire(self, model: SpotterModel) -> None:
        """Give a model of the folder to no new stream; it is unloaded after its last stream."""
        self._replaced.append(_ReplacedModel(model, asyncio.get_running_loop().time()))
        log(_LOGGER, logging.INFO, "model retired", model=model.metadata.name, sha256=model.sha256)


def _log_loaded(model: SpotterModel) -> None:
    log(
        _LOGGER,
        logging.INFO,
        "model loaded",
        model=model.metadata.name,
        version=model.metadata.version,
        sha256=model.sha256,
    )


def _kept_folder(settings: Settings, path: str | None) -> Path | None:
    """Return the folder for copies of a model file (None: the bundled one); None if none are kept."""
    if not settings.keep_replaced_s or settings.model_sha256:
        return None  # only the pinned models may run
    if settings.state_dir:
        return Path(settings.state_dir) / "models"
    return None if path is None else Path(path).parent / FOLDER_NAME


def _open_kept(settings: Settings) -> dict[Path, KeptModels]:
    """Open the folders for copies of the model files; BadFileError if `state_dir` cannot be used."""
    kept: dict[Path, KeptModels] = {}
    of_folder = (os.path.join(settings.model_dir, SUFFIX),) if settings.model_dir else ()
    for folder in {_kept_folder(settings, path) for path in (*(settings.model or (None,)), *of_folder)}:
        if folder is None:
            continue
        try:
            kept[folder] = KeptModels(folder, settings.keep_replaced_s)
        except BadFileError as error:
            if settings.state_dir:
                raise
            _log_not_kept(f"{error} Name another folder with --state-dir.")
    return kept


def _log_not_kept(problem: str) -> None:
    log(
        _LOGGER,
        logging.WARNING,
        "models not kept",
        problem=problem,
        effect="Streams cannot resume in another process after their model was replaced.",
    )
