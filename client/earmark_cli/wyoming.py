"""`earmark wyoming`: serve wake words to Home Assistant and its satellites."""

from __future__ import annotations

import argparse
import asyncio
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from earmark_client.errors import NotInstalledError

from earmark_cli.connection import server_for
from earmark_cli.interrupts import exit_on_sigterm
from earmark_cli.keyword_options import keyword_options
from earmark_cli.options import add_command, models_option, server_options, whole_number
from earmark_cli.output.console import notice

if TYPE_CHECKING:
    from earmark_cli.options import Commands


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    parser = add_command(
        commands,
        "wyoming",
        "serve wake words to Home Assistant and its satellites, with the Wyoming protocol",
        run,
        server_options(),
        models_option(),
        keyword_options(),
    )
    parser.add_argument(
        "--uri",
        type=_uri,
        default="tcp://127.0.0.1:10400",
        metavar="URI",
        help="where to serve: tcp://HOST:PORT or unix://PATH (default: tcp://127.0.0.1:10400); the protocol "
        "has neither encryption nor passwords",
    )
    parser.add_argument(
        "--zeroconf",
        nargs="?",
        const="Earmark",
        metavar="NAME",
        help="announce the service on the local network, for Home Assistant to discover (default name: "
        "Earmark)",
    )
    parser.add_argument(
        "--max-connections",
        type=whole_number(1, 100_000),
        default=200,
        metavar="N",
        help="maximum number of connections (default: 200)",
    )


def run(args: argparse.Namespace) -> int:
    """Serve until an interrupt or SIGTERM."""
    try:
        from earmark_wyoming.bridge import BridgeOptions, serve
    except ImportError as error:
        from earmark_audio.extras import install_command

        raise NotInstalledError(
            f"the Wyoming bridge requires {error.name}: {install_command('wyoming')}"
        ) from error
    options = BridgeOptions(
        uri=args.uri,
        zeroconf=args.zeroconf,
        models=args.models,
        settings=args.keyword,
        threshold=args.threshold,
        max_connections=args.max_connections,
        report=lambda text: notice(f"earmark: {text}"),
    )
    with exit_on_sigterm(), server_for(args) as (address, credentials):
        asyncio.run(serve(address, credentials, options))
    return 0


def _uri(text: str) -> str:
    try:
        uri = urlsplit(text)
        is_valid = uri.hostname and uri.port is not None if uri.scheme == "tcp" else uri.path or uri.netloc
    except ValueError:  # the port
        is_valid = False
    if not is_valid or uri.scheme not in {"tcp", "unix"}:
        raise argparse.ArgumentTypeError(f"{text!r} is neither tcp://HOST:PORT nor unix://PATH")
    return text
