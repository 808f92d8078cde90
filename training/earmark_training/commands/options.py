"""Command-line options and output that several subcommands share."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from earmark_training.errors import OutputError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from earmark_spotter.metadata import Metric


def add_corpus_option(parser: argparse.ArgumentParser, help_text: str) -> None:
    """Add `--corpus`, the folder of the prepared data."""
    parser.add_argument(
        "--corpus",
        type=Path,
        default=Path("data/corpus"),
        metavar="DIR",
        help=f"{help_text} (default: %(default)s)",
    )


def check_output_file(path: Path) -> None:
    """Raise OutputError if a file cannot be written: before the work that fills it, which may take hours."""
    if path.is_dir():
        raise OutputError(f"{path} cannot be written: it is a folder, so give the name of a file in it")
    try:
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {path.parent}: {error.strerror}") from error


def check_output_folder(path: Path) -> None:
    """Create a folder; raise OutputError if no file can be written into it."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}") from error


def print_metrics(metrics: Iterable[Metric]) -> None:
    """Print one metric per line: name, value and description."""
    shown = list(metrics)
    width = max((len(metric.name) for metric in shown), default=0)
    for metric in shown:
        print(f"{metric.name:{width}} {metric.value:9.4f}  {metric.description}")
