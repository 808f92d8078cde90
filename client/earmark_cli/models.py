"""`earmark models`: list the models of a server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from earmark_cli.connection import connected
from earmark_cli.options import add_command, json_option, server_options
from earmark_cli.output.printer import make_printer

if TYPE_CHECKING:
    import argparse

    from earmark_cli.options import Commands


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    parser = add_command(
        commands, "models", "list the models of a server", run, server_options(), json_option()
    )
    parser.add_argument(
        "--details", action="store_true", help="print every figure, the data sets and the checksum, too"
    )


def run(args: argparse.Namespace) -> int:
    """Print all models."""
    printer = make_printer(args)
    with connected(args) as (_, client):
        for model in client.list_models():
            printer.model(model, details=args.details)
    return 0
