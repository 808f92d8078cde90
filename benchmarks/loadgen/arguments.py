"""Options that several commands share, and how all of them end."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import earmark_cli
from earmark_client import EarmarkError
from earmark_spotter import SpotterError

from benchmarks.loadgen.speech import BenchmarkError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

DEMO_RECORDING = Path(earmark_cli.__file__).parent / "samples" / "demo.flac"


def parser(name: str, description: str) -> argparse.ArgumentParser:
    """Make a command's parser, with the model and the recording, which every command has."""
    made = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}", description=description, allow_abbrev=False
    )
    made.add_argument(
        "--model", type=Path, metavar="FILE", help="the model file (default: the one that comes with Earmark)"
    )
    made.add_argument(
        "--recording",
        type=Path,
        default=DEMO_RECORDING,
        metavar="FILE",
        help="what is said, in a loop: WAV, FLAC, Ogg or MP3 (default: the demo recording)",
    )
    return made


def add_chunk_ms(to: argparse.ArgumentParser, default: int = 100) -> None:
    """Add the option of how much audio is in one message."""
    to.add_argument(
        "--chunk-ms", type=count, default=default, help=f"audio in one message, in ms (default: {default})"
    )


def run(name: str, measure: Callable[[], Sequence[str]]) -> int:
    """Measure; say which problems there were, and return the exit code: 1 if there was one."""
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
    """Read a whole number from 1 on."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def counts(text: str) -> list[int]:
    """Read several of them, with commas between."""
    return [count(part.strip()) for part in text.split(",")]


def number(low: float, high: float, what: str = "a number") -> Callable[[str], float]:
    """Make a reader of numbers within bounds."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not {what} from {low:g} to {high:g}")
        return value

    return read


seconds = number(0.5, 86_400, "a number of seconds")
"""Reads a length of time that is enough to measure something."""
