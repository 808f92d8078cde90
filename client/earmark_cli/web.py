"""`earmark web`: a page that listens, served by this process."""

from __future__ import annotations

import ipaddress
import socket
from typing import TYPE_CHECKING

from earmark_client.addresses import is_loopback
from earmark_client.errors import EarmarkError, InvalidRequestError, NotInstalledError

from earmark_cli.connection import reached
from earmark_cli.output.printer import notice

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

# What one visitor's connections may come to, and then some for all.
_MOST_CONNECTIONS = 200
_END_WITHIN_S = 3


def add_options(parser: argparse.ArgumentParser, *, whole: Callable[[str, int, int], int]) -> None:
    """Add the page's options; `whole` reads a number within bounds."""
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="HOST",
        help="serve on this address (default: 127.0.0.1); any but this machine's own needs a certificate: "
        "browsers give no microphone without",
    )
    parser.add_argument(
        "--port",
        type=lambda text: whole(text, 0, 65_535),
        default=8080,
        metavar="PORT",
        help="and port; 0: any (default: 8080)",
    )
    parser.add_argument("--https-certificate", metavar="FILE", help="the page's certificate, a PEM file")
    parser.add_argument("--https-key", metavar="FILE", help="that certificate's key, a PEM file")
    parser.add_argument(
        "--name",
        action="append",
        default=[],
        metavar="NAME",
        help="a name that the page is called by, beside localhost, HOST and numeric addresses; may be "
        "repeated",
    )
    parser.add_argument(
        "--max-streams",
        type=lambda text: whole(text, 1, 1_000_000),
        default=16,
        metavar="N",
        help="let so many pages listen at the same time, 4 of one address (default: 16)",
    )
    parser.epilog = (
        "also: GET /health, GET /info, POST /predict (a form with a recording as `file`, at most 8 MiB), "
        "described by GET /openapi.json; a page that is silent for 30 s is left"
    )


def web(args: argparse.Namespace) -> int:
    """Serve the page until it is interrupted."""
    try:
        import uvicorn
        from earmark_web.app import make_app
        from earmark_web.websocket import MAX_MESSAGE_BYTES
    except ImportError as error:
        raise NotInstalledError(f"the page needs {error.name}: `pip install 'earmark[web]'`") from error
    if (args.https_certificate is None) != (args.https_key is None):
        raise InvalidRequestError("--https-certificate and --https-key must be given together")
    secure = args.https_certificate is not None
    if not secure and not is_loopback(args.host):
        raise InvalidRequestError(
            f"--host {args.host} needs --https-certificate and --https-key: browsers give the microphone "
            "only to pages of this machine and to encrypted ones"
        )
    with reached(args) as (address, security), _listening(args.host, args.port) as listener:
        config = uvicorn.Config(
            make_app(
                address,
                **security,
                model=args.model,
                names=[*args.name, args.host],
                max_streams=args.max_streams,
            ),
            ssl_certfile=args.https_certificate,
            ssl_keyfile=args.https_key,
            log_level="warning",
            server_header=False,
            limit_concurrency=_MOST_CONNECTIONS,
            timeout_graceful_shutdown=_END_WITHIN_S,
            # The application has a limit of its own, that it can give a reason for.
            ws_max_size=2 * MAX_MESSAGE_BYTES,
            ws_per_message_deflate=False,
            # A page that waits for the service is not read, its answers to pings neither.
            ws_ping_interval=None,
        )
        try:
            config.load()
        except OSError as error:
            raise InvalidRequestError(
                f"{args.https_certificate} and {args.https_key} must be PEM files that belong together, the "
                f"key without a password ({error})"
            ) from None
        name = args.host if _named(args.host) else "localhost"
        port = listener.getsockname()[1]
        notice(f"earmark: the page is at {'https' if secure else 'http'}://{name}:{port}/ (Ctrl-C ends it)")
        uvicorn.Server(config).run(sockets=[listener])
    return 0


def _listening(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address, family=family)
    except OSError as error:
        why = str(error.strerror).partition(" (")[0]  # Python adds where
        raise EarmarkError(f"cannot listen on {host}, port {port}: {why}; try another --port") from None


def _named(host: str) -> bool:
    """Whether a browser can be sent there as it is."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return True
    return address.version == 4 and not address.is_unspecified
