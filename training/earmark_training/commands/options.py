"""Command-line options and output that several subcommands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

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


def print_metrics(metrics: Iterable[Metric]) -> None:
    """Print one metric per line: name, value and description."""
    for metric in metrics:
        print(f"{metric.name:24} {metric.value:8.4f}  {metric.description}")
