"""The command line of `earmark-train`: all commands and their options."""

from __future__ import annotations

import io
import logging
import sys
from contextlib import redirect_stdout
from importlib.metadata import version
from typing import TYPE_CHECKING

from earmark_audio.argument_parser import ArgumentParser
from earmark_audio.extras import install_command
from earmark_audio.terminal import printable, report_unwritable
from earmark_spotter import SpotterError

from earmark_training.commands import (
    evaluate,
    export,
    keyword,
    negatives,
    prepare,
    thresholds,
    train,
    verifier,
)
from earmark_training.errors import TrainingError
from earmark_training.processes import ended_by_signals

if TYPE_CHECKING:
    import argparse

_COMMANDS = {
    "prepare": prepare,
    "train": train,
    "export": export,
    "verifier": verifier,
    "thresholds": thresholds,
    "evaluate": evaluate,
    "keyword": keyword,
    "negatives": negatives,
}

_AFTER_INTERRUPT = {
    "train": "; run it again to resume after the last completed epoch",
    "keyword": "; run it again to continue: the last checkpoint and the speech of neural voices are kept",
}


class _StandardError(logging.Handler):
    """Prints messages above the progress bar, which replaces `sys.stderr` while it is shown."""

    def emit(self, record: logging.LogRecord) -> None:
        print(_printable_lines(self.format(record)), file=sys.stderr, flush=True)


def _printable_lines(message: str) -> str:
    """Return a message of several lines without other control characters, which names of files may have."""
    return "\n".join(map(printable, message.split("\n")))


def build_parser() -> ArgumentParser:
    """Return the parser of the command line."""
    parser = ArgumentParser(
        prog="earmark-train",
        description="Train a keyword-spotting model, from recordings to the file that earmark-server serves.",
    )
    parser.add_argument("--version", action="version", version=f"earmark-train {version('earmark')}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in _COMMANDS.items():
        subparser = subparsers.add_parser(name, help=command.SUMMARY, description=command.SUMMARY)
        command.add_arguments(subparser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Run the command that was parsed; return its exit code: 0, 1 for a failure, 130 for an interrupt."""
    for stream in (sys.stdout, sys.stderr):
        # A file name that the terminal's encoding lacks must not end the program.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    # Printed at the end: a closed pipe must not end the command before all its files are written.
    results = io.StringIO()
    with ended_by_signals(), redirect_stdout(results):
        code = _run(args)
    try:
        print(results.getvalue(), end="", flush=True)
    except OSError as error:
        report_unwritable("earmark-train", error)
        return 1
    return code


def _run(args: argparse.Namespace) -> int:
    """Run the command, and print the error that ends it; return its exit code."""
    try:
        # Messages of this package, without the exporter's message for every node.
        logging.basicConfig(format="%(message)s", handlers=[_StandardError()])
        logging.getLogger("earmark_training").setLevel(logging.INFO)
        _COMMANDS[args.command].run(args)
    except KeyboardInterrupt:
        remedy = _AFTER_INTERRUPT.get(args.command, "")
        print(f"earmark-train: interrupted{remedy}", file=sys.stderr)
        return 130
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("earmark"):
            raise
        print(
            f"earmark-train: the package {error.name} is missing: {install_command('train')}",
            file=sys.stderr,
        )
        return 1
    except (SpotterError, TrainingError, OSError) as error:
        print(f"earmark-train: {_printable_lines(str(error))}", file=sys.stderr)
        return 1
    return 0
