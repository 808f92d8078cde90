"""Server addresses, as people write them, completed for gRPC."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import unquote, urlsplit

from earmark_client.errors import InvalidRequestError

DEFAULT_PORT = 50051
DEFAULT_ADDRESS = f"localhost:{DEFAULT_PORT}"

_IP_EXAMPLES = {"ipv4": "ipv4:127.0.0.1", "ipv6": "ipv6:[::1]"}


def grpc_target(address: str) -> str:
    """Return an address as gRPC expects it.

    Accepts HOST:PORT, HOST (port 50051), [IPv6]:PORT, and gRPC URIs such as ipv4:IP:PORT,IP:PORT, which are
    returned unchanged.
    Raises InvalidRequestError for anything else.
    """
    if not isinstance(address, str):
        raise InvalidRequestError(f"an address must be a string such as {DEFAULT_ADDRESS}, not {address!r}")
    address = address.strip()
    if re.search("[\ud800-\udfff]", address):  # bytes that are not UTF-8
        raise InvalidRequestError(f"{address!r} is not an address: it is not valid UTF-8")
    if "\0" in address:
        raise InvalidRequestError(f"{address!r} is not an address: it contains a null character")
    if uri := re.match(r"(unix|unix-abstract|dns|ipv4|ipv6|vsock|xds|passthrough):/{0,3}", address):
        _check_uri(address, uri[1], address[uri.end() :])
        return address
    if re.match("https?://", address):
        raise InvalidRequestError(
            f"{address!r} is the address of a web page; the service speaks gRPC: give HOST:PORT, such as "
            f"{DEFAULT_ADDRESS}, with --tls (tls=True) for an encrypted connection"
        )
    if "://" in address or "/" in address:
        raise InvalidRequestError(f"{address!r} is not an address: give HOST:PORT, such as {DEFAULT_ADDRESS}")
    try:
        if ipaddress.ip_address(address).version == 6:
            address = f"[{address}]"
    except ValueError:
        pass
    try:
        parts = urlsplit(f"//{address}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or port == 0 or address.endswith(":") or re.search(r"\s|@|,", address):
        raise InvalidRequestError(f"{address!r} is not an address: give HOST:PORT, such as {DEFAULT_ADDRESS}")
    return address if port else f"{address}:{DEFAULT_PORT}"


def _check_uri(address: str, scheme: str, path: str) -> None:
    """Raise InvalidRequestError for a gRPC URI that names nothing, or an IP address without its port."""
    if not path or (scheme == "dns" and path.count("[") != path.count("]")):
        raise InvalidRequestError(
            f"{address!r} is not an address: it names no server. Give HOST:PORT, such as {DEFAULT_ADDRESS}"
        )
    if scheme in _IP_EXAMPLES and not all(_is_endpoint(one, scheme) for one in unquote(path).split(",")):
        raise InvalidRequestError(
            f"{address!r} is not an address: after {scheme}: each IP address needs a port, such as "
            f"{_IP_EXAMPLES[scheme]}:{DEFAULT_PORT}"
        )


def _is_endpoint(text: str, scheme: str) -> bool:
    host, _, port = text.rpartition(":")
    is_port = re.fullmatch(r"[0-9]{1,5}", port) is not None and 0 < int(port) < 1 << 16
    try:
        version = ipaddress.ip_address(host.removeprefix("[").removesuffix("]")).version
    except ValueError:
        return False
    return is_port and scheme == f"ipv{version}" and host.startswith("[") == (version == 6)
