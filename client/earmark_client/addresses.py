"""Server addresses: complete them for gRPC, and tell whether they lead to this machine."""

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
    address = address.strip()
    if re.match(r"(unix|unix-abstract|dns|ipv4|ipv6|vsock|xds|passthrough):", address):
        return address
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


def is_local_target(target: str) -> bool:
    """Return whether data sent to a gRPC target stays on this machine.

    `localhost` is the only name that counts as local: any other may resolve to another machine.
    """
    if target.startswith(("unix:", "unix-abstract:")):
        return True
    return is_loopback(urlsplit(f"//{target}").hostname or "")


def is_loopback(host: str) -> bool:
    """Return whether a host, given without a port, is this machine; of all names only `localhost` is."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
