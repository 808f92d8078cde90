"""The route of a connection: whether it stays on this machine, or leads through a proxy."""

from __future__ import annotations

import ipaddress
import os
import re
from urllib.parse import unquote, urlsplit

# In the order in which gRPC looks for them.
_PROXY_VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy")
_EXCEPTION_VARIABLES = ("no_grpc_proxy", "no_proxy")


def is_local_target(target: str) -> bool:
    """Return whether data sent to a gRPC target stays on this machine.

    `localhost` is the only name that counts as local: any other may resolve to another machine. A dns: URI
    may name the server that resolves it, so none counts.
    """
    if target.startswith(("unix:", "unix-abstract:")):
        return True
    return not target.startswith("dns:") and all(map(is_loopback, _hosts(target)))


def _hosts(target: str) -> list[str]:
    """Return the hosts of a target, without their ports: several for ipv4:IP:PORT,IP:PORT.

    The name server of dns://NAME_SERVER/HOST is not one of them: that target remains as it is.
    """
    endpoints = re.sub(r"^(dns|ipv4|ipv6):(///)?(?!/)", "", target)
    return [urlsplit(f"//{unquote(one)}").hostname or "" for one in endpoints.split(",")]


def is_loopback(host: str) -> bool:
    """Return whether a host, given without a port, is this machine; of all names only `localhost` is."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def proxy_variable(target: str) -> str | None:
    """Return the environment variable whose proxy gRPC uses for a target, None without a proxy."""
    host = _hosts(target)[0]
    if not host or is_local_target(target):
        return None
    exceptions = next((os.environ[name] for name in _EXCEPTION_VARIABLES if name in os.environ), "")
    if any(host.endswith(suffix.strip()) for suffix in exceptions.split(",") if suffix.strip()):
        return None
    return next((name for name in _PROXY_VARIABLES if os.environ.get(name)), None)
