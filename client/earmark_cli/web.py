"""`earmark web`: serve a web page that spots keywords in a browser's microphone audio."""

from __future__ import annotations

import argparse
import errno
import ipaddress
import logging
import re
import socket
from typing import TYPE_CHECKING

from earmark_client.connection_route import is_loopback
from earmark_client.errors import EarmarkError, InvalidRequestError, NotInstalledError

from earmark_cli.connection import server_for
from earmark_cli.demo import RECORDING
from earmark_cli.interrupts import exit_on_sigterm
from earmark_cli.options import add_command, model_option, server_options, whole_number
from earmark_cli.output.console import notice
from earmark_cli.usage_error import UsageError

if TYPE_CHECKING:
    from earmark_cli.options import Commands

# Several connections for each page, and some for other requests.
_MAX_CONNECTIONS = 200
_SHUTDOWN_TIMEOUT_S = 3
_LOOPBACK = ["127.0.0.1", "::1"]


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    parser = add_command(
        commands,
        "web",
        "serve a web page that spots keywords in a browser's microphone audio",
        run,
        server_options(),
        model_option(),
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="HOST",
        help="address to serve on (default: 127.0.0.1); an address that other machines can reach requires a "
        "certificate, because browsers permit the microphone only on encrypted pages",
    )
    parser.add_argument(
        "--port",
        type=whole_number(0, 65_535),
        default=8080,
        metavar="PORT",
        help="port to serve on; 0: any free port (default: 8080)",
    )
    parser.add_argument(
        "--insecure",
        action="store_true",
        help="serve without a certificate on an address that other machines may reach: in a container, or "
        "behind a proxy with HTTPS",
    )
    parser.add_argument("--https-certificate", metavar="FILE", help="PEM file of the page's certificate")
    parser.add_argument("--https-key", metavar="FILE", help="PEM file of the key of --https-certificate")
    parser.add_argument(
        "--name",
        action="append",
        default=[],
        metavar="NAME",
        help="host name of the page, in addition to localhost, HOST and numeric addresses; may be repeated",
    )
    parser.add_argument(
        "--allow-origin",
        action="append",
        default=[],
        type=_origin,
        metavar="ORIGIN",
        help="origin of another site whose pages may use the WebSocket and the HTTP API, such as "
        "https://example.org; may be repeated",
    )
    parser.add_argument(
        "--trusted-proxy",
        action="append",
        type=_proxy,
        metavar="ADDRESS",
        help="address of a proxy in front of the page, or a network that contains proxies only, such as "
        "10.0.7.0/24: its X-Forwarded-For and X-Forwarded-Proto are believed; may be repeated (default: "
        "127.0.0.1 and ::1)",
    )
    parser.add_argument(
        "--max-streams",
        type=whole_number(1, 1_000_000),
        default=16,
        metavar="N",
        help="maximum number of concurrent streams of all pages, 4 per client address (default: 16)",
    )
    parser.epilog = (
        "It also serves GET /health, GET /info, POST /spot and POST /predict (a form with a recording as "
        "`file`, at most 8 MiB), described by GET /openapi.json, and the WebSocket /stream. A page that "
        "sends nothing for 30 s is disconnected."
    )


def run(args: argparse.Namespace) -> int:
    """Serve the page until an interrupt or SIGTERM."""
    try:
        import uvicorn
        from earmark_web.app import make_app
        from earmark_web.timed_http import TimedHttp
        from earmark_web.websocket import MAX_MESSAGE_BYTES
    except ImportError as error:
        from earmark_audio.extras import install_command

        raise NotInstalledError(f"the web page requires {error.name}: {install_command('web')}") from error
    if (args.https_certificate is None) != (args.https_key is None):
        raise UsageError("--https-certificate and --https-key must be given together")
    secure = args.https_certificate is not None
    if ":" in args.host and not _is_ipv6(args.host):
        raise UsageError(
            f"--host {args.host!r} is neither an address nor a name: it has no brackets, and --port sets its "
            "port"
        )
    if not secure and not args.insecure and not is_loopback(args.host):
        raise UsageError(
            f"--host {args.host} requires --https-certificate and --https-key: browsers permit the "
            "microphone only on encrypted pages and on pages of this machine; behind a proxy with HTTPS, use "
            "--insecure"
        )
    with (
        exit_on_sigterm(),  # uvicorn stops too, and then raises the signal again
        server_for(args) as (address, credentials),
        _listen(args.host, args.port) as listener,
    ):
        config = uvicorn.Config(
            make_app(
                address,
                sample=RECORDING,
                **credentials,
                model=args.model,
                names=[*args.name, args.host],
                origins=args.allow_origin,
                max_streams=args.max_streams,
            ),
            ssl_certfile=args.https_certificate,
            ssl_keyfile=args.https_key,
            forwarded_allow_ips=args.trusted_proxy or _LOOPBACK,
            log_level="error",
            server_header=False,
            http=TimedHttp,
            limit_concurrency=_MAX_CONNECTIONS,
            timeout_graceful_shutdown=_SHUTDOWN_TIMEOUT_S,
            # The application has a lower limit and closes the WebSocket with a reason.
            ws_max_size=2 * MAX_MESSAGE_BYTES,
            ws_per_message_deflate=False,
            # Disabled: while the server applies backpressure, pongs of the page are not read.
            ws_ping_interval=None,
        )
        _log_no_invalid_requests()
        try:
            config.load()
        except OSError as error:
            raise InvalidRequestError(
                f"{args.https_certificate} and {args.https_key} must be a PEM certificate and its key, "
                f"without a password ({error})"
            ) from None
        name = args.host if _is_browsable(args.host) else "localhost"
        port = listener.getsockname()[1]
        notice(f"earmark: the page is at {'https' if secure else 'http'}://{name}:{port}/ (Ctrl-C stops it)")
        uvicorn.Server(config).run(sockets=[listener])
    return 0


def _origin(text: str) -> str:
    """Parse an origin: a scheme, a host and perhaps a port (RFC 6454)."""
    if re.fullmatch(r"https?://[^/?#@\s*]+", text) is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not an origin such as https://example.org")
    return text


def _proxy(text: str) -> str:
    """Check an address or a network; uvicorn would accept any text, and trust nobody."""
    try:
        ipaddress.ip_network(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither an IP address nor a network such as 10.0.7.0/24"
        ) from None
    return text


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address, family=family)
    except UnicodeError:
        raise UsageError(f"--host {host!r} is neither an address nor a name") from None
    except OSError as error:
        cause = str(error.strerror).partition(" (")[0]  # without the address, which Python appends
        is_of_host = isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL
        option = "--host" if is_of_host else "--port"
        raise EarmarkError(f"cannot listen on {host}, port {port}: {cause}: give another {option}") from None


def _log_no_invalid_requests() -> None:
    """Log nothing of what a client can cause by an invalid request: it could fill a disk."""
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    # uvicorn logs its own text of this with a traceback, as if it were an error of the application.
    logging.getLogger("uvicorn.error").addFilter(lambda record: "Invalid UTF-8" not in str(record.msg))


def _is_ipv6(host: str) -> bool:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True


def _is_browsable(host: str) -> bool:
    """Return whether a browser can open this host as it is."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return True
    return address.version == 4 and not address.is_unspecified
