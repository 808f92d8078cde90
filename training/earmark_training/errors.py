"""The errors of training. Their messages state the cause and the remedy."""

from __future__ import annotations


class TrainingError(Exception):
    """The base class of all errors that training raises."""


class CorpusError(TrainingError):
    """The data cannot be used."""


class RecipeError(TrainingError):
    """The recipe does not match the data or the checkpoint."""


class OutputError(TrainingError):
    """A file cannot be written where it was asked for."""


class ExportError(TrainingError):
    """The network cannot be exported or imported, or the exported model differs from it."""


class WorkerError(TrainingError):
    """A worker process was killed."""

    def __init__(self) -> None:
        super().__init__(
            "a worker process was ended, probably because the memory was short: close other programs, or use "
            "a machine with more memory, and run the command again"
        )
