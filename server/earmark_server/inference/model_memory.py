"""Counts the models in memory, because the guard of the memory allows for them."""

from __future__ import annotations

import weakref

from earmark_spotter import SpotterModel


class ModelMemory:
    """The models in memory, each from the beginning of its loading until it is freed."""

    def __init__(self) -> None:
        self._sizes: dict[object, int] = {}

    @property
    def file_bytes(self) -> int:
        """The sum of the lengths of the models' files; any thread may read it."""
        return sum(list(self._sizes.values()))

    def load(self, content: bytes, threads: int) -> SpotterModel:
        """Load a model from the bytes of its file; errors are those of SpotterModel."""
        key = object()
        self._sizes[key] = len(content)
        try:
            model = SpotterModel(content, threads=threads)
        except BaseException:
            del self._sizes[key]
            raise
        weakref.finalize(model, self._sizes.pop, key)
        return model

    def add(self, model: SpotterModel, content: bytes) -> None:
        """Count a model that was loaded elsewhere from the bytes of its file."""
        key = object()
        self._sizes[key] = len(content)
        weakref.finalize(model, self._sizes.pop, key)
