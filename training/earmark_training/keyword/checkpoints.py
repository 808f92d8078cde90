"""Where an interrupted training is kept, so that the same command continues it."""

from __future__ import annotations

import fcntl
import hashlib
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from earmark_training.errors import OutputError
from earmark_training.output_files import writing

if TYPE_CHECKING:
    from collections.abc import Iterator
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


@contextmanager
def only_training_of(out: Path) -> Iterator[None]:
    """Hold the folder of the checkpoints of a model file: another training would replace and remove them.

    Raises OutputError if another training holds it, or if it cannot be created.
    """
    folder = unfinished(out)
    if folder == out:
        raise OutputError(f"{out} cannot be written: checkpoints have this name, so give another one")
    with writing(folder):
        folder.mkdir(exist_ok=True)
        held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(held)
        raise OutputError(
            f"another command is making {out}: wait until it ends, or name another file with --out"
        ) from None
    except OSError:
        pass  # a network's file system may have no locks
    try:
        yield
    finally:
        for empty in (*folder.glob("*"), folder):
            with suppress(OSError):  # it has checkpoints, or is gone
                empty.rmdir()
        os.close(held)


def unfinished(out: Path) -> Path:
    """Return the folder of the checkpoints of a model file, which is removed once the file is written."""
    return out.with_suffix(".unfinished")
