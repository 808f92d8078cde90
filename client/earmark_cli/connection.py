"""Connections of the commands: to the server that the options name, or to one inside this process."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from earmark_client.errors import InvalidRequestError

from earmark_cli import embedded_server
from earmark_cli.interrupts import Interrupts
from earmark_cli.usage_error import UsageError, check_required

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from earmark_client.credentials import Tls
    from earmark_client.sync_client import SyncClient

_TRUE, _FALSE = ("1", "true", "yes", "on"), ("", "0", "false", "no", "off")


class Credentials(TypedDict, total=False):
    """The arguments of a client that concern credentials."""

    tls: bool | Tls
    token: str | None


@contextmanager
def connected(args: argparse.Namespace, *, default: str | None = None) -> Iterator[tuple[str, SyncClient]]:
    """Yield a server's address, and a client that is connected to it; `server_for` chooses the server."""
    # gRPC is imported only by commands that need a server, so that --help is fast.
    from earmark_client.sync_client import SyncClient

    with (
        server_for(args, default=default) as (address, credentials),
        SyncClient(address, **credentials) as client,
        Interrupts(client.close),
    ):
        yield address, client


@contextmanager
def server_for(args: argparse.Namespace, *, default: str | None = None) -> Iterator[tuple[str, Credentials]]:
    """Yield a server's address, and the credentials of a client.

    The server is the one that the options name, else the one at the address `default`, else one that
    runs inside this process until the context ends.
    """
    address = args.server or default
    if address is not None:
        yield address, _credentials(args)
        return
    check_required(args, ("tls", "ca", "certificate", "key", "token_file"), "--server HOST:PORT")
    with embedded_server.serve() as embedded_address:
        yield embedded_address, {}


def _credentials(args: argparse.Namespace) -> Credentials:
    from earmark_client.credentials import Tls

    ca, certificate, key = (
        getattr(args, name) or os.environ.get(f"EARMARK_{name.upper()}") or None
        for name in ("ca", "certificate", "key")
    )
    if ca or certificate or key:
        tls: bool | Tls = Tls(ca=ca, certificate=certificate, key=key)
    else:
        tls = args.tls or _is_set("EARMARK_TLS")
    if args.token_file is None:
        # A Kubernetes secret made from the output of --new-token ends with a line break.
        return {"tls": tls, "token": os.environ.get("EARMARK_TOKEN", "").strip() or None}
    try:
        token = Path(args.token_file).read_text(encoding="utf-8-sig", errors="replace").strip()
    except OSError as error:
        raise InvalidRequestError(f"{args.token_file} cannot be read: {error.strerror}") from None
    return {"tls": tls, "token": token}


def _is_set(variable: str) -> bool:
    text = os.environ.get(variable, "").strip().lower()
    if text not in _TRUE + _FALSE:
        raise UsageError(f"{variable} must be 1 or 0, but is {text!r}")
    return text in _TRUE
