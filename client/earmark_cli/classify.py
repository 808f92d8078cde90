"""`earmark classify`: classify short clips with one word each."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from earmark_audio import FORMATS_HELP, Decoder, identify_file
from earmark_client.errors import InvalidRequestError, RecordingError

from earmark_cli.audio_sources import open_recording
from earmark_cli.connection import connected
from earmark_cli.options import (
    add_command,
    channel_option,
    json_option,
    model_option,
    server_options,
    whole_number,
)
from earmark_cli.output.printer import make_printer

if TYPE_CHECKING:
    import argparse

    from earmark_client.sync_client import SyncClient

    from earmark_cli.options import Commands
    from earmark_cli.output.printer import Printer


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
        channel_option(),
    )
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help=f"a recording: {FORMATS_HELP}. - reads a recording from standard input",
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
                failed |= not _classify(client, name, args, printer)
            except (RecordingError, InvalidRequestError) as error:
                printer.failure(name, error)
                failed = True
    return 1 if failed else 0


def _classify(client: SyncClient, name: str, args: argparse.Namespace, printer: Printer) -> bool:
    """Classify one clip and print the result; return whether the whole clip was read."""
    if args.channel is None and _is_decoded_by_servers(name):
        result = client.classify(name, model=args.model)
        printer.classification(name, result, args.top)
        for warning in result.warnings:
            printer.warning(name, warning)
        return all(warning.reason != _INCOMPLETE for warning in result.warnings)
    with open_recording(name, channel=args.channel) as recording:
        blocks: list[bytes] = []
        damage: RecordingError | None = None
        try:
            blocks.extend(recording)
        except RecordingError as error:
            if not blocks:
                raise
            damage = error
        result = client.classify(b"".join(blocks), sample_rate_hz=recording.sample_rate_hz, model=args.model)
        printer.classification(name, result, args.top)
        for one in recording.notices:
            printer.warning(name, one)
        for warning in result.warnings:
            printer.warning(name, warning)
    if damage:
        printer.failure(name, damage)
    return damage is None


def _is_decoded_by_servers(name: str) -> bool:
    """Return whether a file can be sent as it is, because every server decodes it, or finds the error."""
    if not name or not os.path.isfile(name):
        return False
    try:
        with open(name, "rb") as file:
            kind, _ = identify_file(file)
    except OSError:
        return False
    return kind is None or kind.decoder is not Decoder.FFMPEG
