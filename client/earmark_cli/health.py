"""`earmark health`: show whether a server is serving."""

from __future__ import annotations

from typing import TYPE_CHECKING

from earmark_client.addresses import DEFAULT_ADDRESS
from earmark_client.events import Health

from earmark_cli.connection import connected
from earmark_cli.options import add_command, json_option, server_options
from earmark_cli.output.printer import make_printer

if TYPE_CHECKING:
    import argparse

    from earmark_cli.options import Commands


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    parser = add_command(
        commands,
        "health",
        "show whether a server is serving",
        run,
        server_options(DEFAULT_ADDRESS),
        json_option(),
    )
    parser.add_argument("--watch", action="store_true", help="keep running, and print every change")


def run(args: argparse.Namespace) -> int:
    """Print the health of the server, or each change of it; return 0 only if it is SERVING."""
    printer = make_printer(args)
    with connected(args, default=DEFAULT_ADDRESS) as (address, client):
        if args.watch:
            status = Health.UNKNOWN
            for status in client.watch_health():
                printer.health(address, status)
        else:
            status = client.health()
            printer.health(address, status)
    return 0 if status is Health.SERVING else 1
