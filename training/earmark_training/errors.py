"""What can be wrong with data, recipes and exports; each message says what to change."""

from __future__ import annotations


class TrainingError(Exception):
    """The root of the errors that training raises on purpose."""


class CorpusError(TrainingError):
    """The data cannot be used."""


class RecipeError(TrainingError):
    """A recipe does not fit the data or the run."""


class ExportError(TrainingError):
    """The exported model does not do what the trained one did."""
