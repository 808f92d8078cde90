"""Options and exit codes that the benchmark commands share."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import earmark_cli
from earmark_client import EarmarkError
from earmark_spotter import SpotterError

from benchmarks.loadgen.errors import BenchmarkError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

DEMO_RECORDING = Path(earmark_cli.__file__).parent / "samples" / "demo.flac"


def make_parser(name: str, description: str) -> argparse.ArgumentParser:
    """Return a command's parser with the options that every command has: the model and the recording."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}", description=description, allow_abbrev=False
    )
    parser.add_argument(
        "--model", type=Path, metavar="FILE", help="the model file (default: the bundled model)"
    )
    parser.add_argument(
        "--recording",
        type=Path,
        default=DEMO_RECORDING,
        metavar="FILE",
        help="the speech to stream, in a loop: WAV, FLAC, Ogg or MP3 (default: the demo recording)",
    )
    return parser


def add_chunk_ms(parser: argparse.ArgumentParser, default: int = 100) -> None:
    """Add the option `--chunk-ms`."""
    parser.add_argument(
        "--chunk-ms", type=count, default=default, help=f"audio per message, in ms (default: {default})"
    )


def run(name: str, measure: Callable[[], Sequence[str]]) -> int:
    """Run `measure`, print the problems that it returns, and return the exit code: 1 if there were any."""
    try:
        problems = measure()
    except (BenchmarkError, EarmarkError, SpotterError) as error:
        print(f"benchmarks.{name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    if problems:
        print("\n" + "\n".join(problems), file=sys.stderr)
    return 1 if problems else 0


def count(text: str) -> int:
    """Parse an integer of at least 1."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer of at least 1")
    return int(text)


def counts(text: str) -> list[int]:
    """Parse integers of at least 1, separated by commas."""
    return [count(part.strip()) for part in text.split(",")]


def number(low: float, high: float, what: str = "a number") -> Callable[[str], float]:
    """Return a function that parses a number from `low` to `high`."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not {what} from {low:g} to {high:g}")
        return value

    return parse


seconds = number(0.5, 86_400, "a number of seconds")
"""Parse a duration that is long enough for a measurement."""
