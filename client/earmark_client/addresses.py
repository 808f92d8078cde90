"""Server addresses, as people write them, completed for gRPC."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

from earmark_client.errors import InvalidRequestError

DEFAULT_PORT = 50051
DEFAULT_ADDRESS = f"localhost:{DEFAULT_PORT}"


def grpc_target(address: str) -> str:
    """Return an address as gRPC expects it.

    Accepts HOST:PORT, HOST (port 50051), [IPv6]:PORT, and gRPC URIs, which are returned unchanged.
    Raises InvalidRequestError for anything else.
    """
    if not isinstance(address, str):
        raise InvalidRequestError(f"an address must be a string such as {DEFAULT_ADDRESS}, not {address!r}")
    address = address.strip()
    if re.search("[\ud800-\udfff]", address):  # bytes that are not UTF-8
        raise InvalidRequestError(f"{address!r} is not an address: it is not valid UTF-8")
    if "\0" in address:
        raise InvalidRequestError(f"{address!r} is not an address: it contains a null character")
    if re.match(r"(unix|unix-abstract|dns|ipv4|ipv6|vsock|xds|passthrough):", address):
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
