"""`earmark classify`: classify short clips with one word each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from earmark_client.errors import InvalidRequestError, RecordingError

from earmark_cli.connection import connected
from earmark_cli.options import add_command, json_option, model_option, server_options, whole_number
from earmark_cli.output.printer import make_printer

if TYPE_CHECKING:
    import argparse

    from earmark_cli.options import Commands


_INCOMPLETE = "RECORDING_INCOMPLETE"
"""Reason of the warning about a truncated or damaged clip: the command fails, after the result."""


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    parser = add_command(
        commands,
        "classify",
        "classify short clips with one word each",
        run,
        server_options(),
        json_option(),
        model_option(),
    )
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="a recording: WAV, RF64, Wave64, AIFF, AU, CAF, FLAC, Ogg or MP3",
    )
    parser.add_argument(
        "--top",
        type=whole_number(1, 1_000_000),
        metavar="N",
        help="print the N most probable classes (default: 3, with --json all)",
    )


def run(args: argparse.Namespace) -> int:
    """Classify all clips; return 1 if any of them failed."""
    printer = make_printer(args)
    failed = False
    with connected(args) as (_, client):
        for name in args.files:
            try:
                result = client.classify(name, model=args.model)
                printer.classification(name, result, args.top)
                for warning in result.warnings:
                    printer.warning(name, warning)
                    failed = failed or warning.reason == _INCOMPLETE
            except (RecordingError, InvalidRequestError) as error:
                printer.failure(name, error)
                failed = True
    return 1 if failed else 0
