"""Counts the models in memory, because the guard of the memory allows for them."""

from __future__ import annotations

import weakref

from earmark_spotter import SpotterModel
from earmark_spotter.speech_encoder import bundled_speech_encoder

_ENCODER = "speech encoder"


class ModelMemory:
    """The models in memory, each from the beginning of its loading until it is freed.

    The speech encoder counts from the first model that needs it on: it is loaded once, and stays.
    """

    def __init__(self, threads: int) -> None:
        """`threads`: per inference."""
        self._threads = threads
        self._sizes: dict[object, int] = {}

    @property
    def file_bytes(self) -> int:
        """The sum of the lengths of the models' files; any thread may read it."""
        return sum(list(self._sizes.values()))

    def load(self, content: bytes) -> SpotterModel:
        """Load a model from the bytes of its file; errors are those of SpotterModel."""
        key = object()
        self._sizes[key] = len(content)
        try:
            model = SpotterModel(content, threads=self._threads)
        except BaseException:
            del self._sizes[key]
            raise
        self._count(model, key)
        return model

    def add(self, model: SpotterModel, content: bytes) -> None:
        """Count a model that was loaded elsewhere from the bytes of its file."""
        key = object()
        self._sizes[key] = len(content)
        self._count(model, key)

    def _count(self, model: SpotterModel, key: object) -> None:
        weakref.finalize(model, self._sizes.pop, key)
        verifier = model.metadata.verifier
        if verifier is not None and verifier.encoder_sha256 is not None:
            self._sizes[_ENCODER] = bundled_speech_encoder(self._threads).file_bytes
