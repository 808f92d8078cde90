"""Where an interrupted training is kept, so that the same command continues it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from earmark_training.keyword.fine_tune import FineTuneRecipe
    from earmark_training.keyword.training_set import TrainingSet


def checkpoint_folder(out: Path, training_set: TrainingSet, recipe: FineTuneRecipe) -> Path:
    """Create and return a folder beside the model file, for this recipe and these recordings only."""
    digest = hashlib.sha256((training_set.corpus.folder / "index.json").read_bytes())
    digest.update(f"{recipe} {training_set.keywords} {len(training_set.recordings)}".encode())
    folder = unfinished(out) / digest.hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def unfinished(out: Path) -> Path:
    """Return the folder of the checkpoints of a model file, which is removed once the file is written."""
    return out.with_suffix(".unfinished")
