"""How a command reaches its server, and what it shows there: the options, and the client made of them."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earmark_client.credentials import Tls
from earmark_client.errors import InvalidRequestError
from earmark_client.sync_client import SyncClient

from earmark_cli import embedded_server

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

_TRUE, _FALSE = ("1", "true", "yes", "on"), ("", "0", "false", "no", "off")


def add_security(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how a connection is secured."""
    group = parser.add_argument_group("security of the connection to --server")
    group.add_argument(
        "--tls", action="store_true", default=None, help="encrypt it (default: $EARMARK_TLS, else plain text)"
    )
    group.add_argument(
        "--ca",
        metavar="FILE",
        help="trust the authorities in this PEM file, not the public ones; says --tls (default: $EARMARK_CA)",
    )
    group.add_argument(
        "--certificate",
        metavar="FILE",
        help="show this certificate, a PEM file; says --tls (default: $EARMARK_CERTIFICATE)",
    )
    group.add_argument(
        "--key", metavar="FILE", help="that certificate's key, a PEM file (default: $EARMARK_KEY)"
    )
    group.add_argument(
        "--token-file",
        metavar="FILE",
        help="send the token in this file (default: $EARMARK_TOKEN is the token itself); in plain text only "
        "to this machine",
    )


@contextmanager
def connected(args: argparse.Namespace, *, without: str | None = None) -> Iterator[tuple[str, SyncClient]]:
    """Give a server's address, and a client of it; which server, `reached` says."""
    with (
        reached(args, without=without) as (address, security),
        SyncClient(address, **security) as client,
    ):
        yield address, client


@contextmanager
def reached(args: argparse.Namespace, *, without: str | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give a server's address, and how a client of it is secured.

    The server is the one that the options name, else that at the address `without`, else one inside
    this process.
    """
    address = args.server or without
    if address is None:
        given = {"--tls": args.tls, "--ca": args.ca, "--certificate": args.certificate, "--key": args.key}
        for flag, value in {**given, "--token-file": args.token_file}.items():
            if value is not None:
                raise InvalidRequestError(f"{flag} is for a server: name it with --server HOST:PORT")
    with embedded_server.server(address) as found:
        yield found, {} if address is None else _security(args)


def _security(args: argparse.Namespace) -> dict[str, Any]:
    ca, certificate, key = (
        getattr(args, name) or os.environ.get(f"EARMARK_{name.upper()}") or None
        for name in ("ca", "certificate", "key")
    )
    if ca or certificate or key:
        tls: bool | Tls = Tls(ca=ca, certificate=certificate, key=key)
    else:
        tls = args.tls or _switched_on("EARMARK_TLS")
    if args.token_file is None:
        return {"tls": tls, "token": os.environ.get("EARMARK_TOKEN") or None}
    try:
        token = Path(args.token_file).read_text(encoding="ascii", errors="replace").strip()
    except OSError as error:
        raise InvalidRequestError(f"{args.token_file} cannot be read: {error.strerror}") from None
    return {"tls": tls, "token": token}


def _switched_on(variable: str) -> bool:
    text = os.environ.get(variable, "").strip().lower()
    if text not in _TRUE + _FALSE:
        raise InvalidRequestError(f"{variable} must be 1 or 0, but is {text!r}")
    return text in _TRUE
