"""Command-line options and output that several subcommands share."""

from __future__ import annotations

import argparse
import math
import os
import re
import shlex
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from earmark_spotter.metadata import NAME_RULE

from earmark_training.errors import OutputError
from earmark_training.output_files import part_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from earmark_spotter.metadata import Metric


_MAX_FA_PER_HOUR = 3600.0
_LEAST_FREE_BYTES = 4 << 20  # about as much as a model file with its report


def add_corpus_option(parser: argparse.ArgumentParser, help_text: str) -> None:
    """Add `--corpus`, the folder of the prepared data."""
    parser.add_argument(
        "--corpus",
        type=Path,
        default=Path("data/corpus"),
        metavar="DIR",
        help=f"{help_text} (default: %(default)s)",
    )


def add_new_model_options(parser: argparse.ArgumentParser, out: str) -> None:
    """Add the options for the model file that a command makes from another one."""
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(out),
        metavar="FILE",
        help="model file to write (default: %(default)s)",
    )
    parser.add_argument("--version", type=model_name, help="version of the model (default: that of MODEL)")
    parser.add_argument(
        "--fa-per-hour",
        type=fa_per_hour,
        default=2.0,
        metavar="N",
        help="maximum false alarms per hour, as for `earmark-train export` (default: %(default)s)",
    )


def whole_number(lowest: int, highest: int = 1_000_000_000) -> Callable[[str], int]:
    """Return a parser of whole numbers between two bounds, both included."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or not lowest <= value <= highest:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {lowest} to {highest}")
        return value

    return parse


seed = whole_number(0, 2**32 - 1)
"""The parser of a random seed."""


def fa_per_hour(text: str) -> float:
    """Parse a number of false alarms per hour."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= _MAX_FA_PER_HOUR:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0, up to {_MAX_FA_PER_HOUR:g}")
    return value


def model_name(text: str) -> str:
    """Parse the name or the version of a model."""
    if not NAME_RULE.pattern.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} must be {NAME_RULE.meaning}")
    return text


def language_code(text: str) -> str:
    """Parse the code of a language; return it in lower case."""
    if not re.fullmatch("[A-Za-z]{2,}(-[A-Za-z0-9]+)*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not the code of a language, such as en or fr-fr")
    return text.lower()


def check_output_file(path: Path) -> None:
    """Raise OutputError if a file cannot be written: before the work that fills it, which may take hours."""
    if os.path.isdir(path):  # unlike `Path.is_dir`, without an error if the name is too long
        raise OutputError(f"{path} cannot be written: it is a folder, so give the name of a file in it")
    if os.path.exists(path) and not path.is_file():  # it would be replaced: a device, a pipe or a socket
        raise OutputError(f"{path} cannot be written: it is not a regular file, so give another name")
    try:
        with tempfile.TemporaryFile(dir=path.parent) as file:
            file.write(bytes(_LEAST_FREE_BYTES))
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {path.parent}: {error.strerror}") from error
    try:
        os.lstat(part_of(path))
    except FileNotFoundError:
        pass
    except OSError as error:  # its name is too long
        raise OutputError(f"{path} cannot be written: {error.strerror}") from error


def check_model_file(path: Path, *suffixes: str) -> None:
    """Raise OutputError if a model file, or a file beside it with one of the suffixes, cannot be written."""
    check_output_file(path)
    for suffix in suffixes:
        check_output_file(path.with_suffix(suffix))


def check_output_folder(path: Path) -> None:
    """Create a folder; raise OutputError if no file can be written into it."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}") from error


def serving_command(model: Path) -> str:
    """Return the command that serves a model file, for a shell."""
    return f"earmark-server --model {shlex.quote(str(model))}"


def print_metrics(metrics: Iterable[Metric]) -> None:
    """Print one metric per line: name, value and description."""
    shown = list(metrics)
    width = max((len(metric.name) for metric in shown), default=0)
    for metric in shown:
        print(f"{metric.name:{width}} {metric.value:9.4f}  {metric.description}")
