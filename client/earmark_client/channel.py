"""Where a server is, and how a channel to it is set up; both clients are built on it."""

from __future__ import annotations

import ipaddress
import json
import re
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from earmark.v1 import keyword_spotting_service_pb2_grpc
from grpc_health.v1 import health_pb2_grpc

from earmark_client import tracing
from earmark_client.errors import EarmarkError, InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Callable

    import grpc

    from earmark_client.credentials import Metadata

# Generated, without types; each serves both flavours of channel.
SpottingStub: Any = keyword_spotting_service_pb2_grpc.KeywordSpottingServiceStub
HealthStub: Any = health_pb2_grpc.HealthStub

DEFAULT_PORT = 50051
DEFAULT_ADDRESS = f"localhost:{DEFAULT_PORT}"

# In turn, and only to servers whose health is SERVING (https://grpc.io/docs/guides/health-checking): one
# that drains is left out at once.
_ROUND_ROBIN = json.dumps(
    {"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": ""}}
)


def target(address: str) -> str:
    """Complete an address for gRPC: HOST:PORT, HOST (port 50051), [IPv6]:PORT, or a gRPC URI as it is.

    InvalidRequestError for what is none of these.
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


def options(
    target: str, connect_timeout_s: float, *, round_robin: bool = False
) -> list[tuple[str, int | str]]:
    """Give the channel's settings, so that no call waits long for a server that is not there."""
    settings: list[tuple[str, int | str]] = [
        # Also the deadline of one attempt to connect, which gRPC sets to 20 s otherwise.
        ("grpc.min_reconnect_backoff_ms", max(100, int(connect_timeout_s * 1000))),
        ("grpc.dns_ares_query_timeout", max(100, int(connect_timeout_s * 1000))),
        # A server that stopped or vanished without a word is noticed within 20 s of a call, also when
        # nothing is sent. (Its contract allows a ping every 10 s.)
        ("grpc.keepalive_time_ms", 12_000),
        ("grpc.keepalive_timeout_ms", 8_000),
        ("grpc.http2.max_pings_without_data", 0),
        # Pings that gRPC sends to measure the connection stand in for those, and would be given 60 s.
        ("grpc.http2.ping_timeout_ms", 8_000),
        # A call made while gRPC waits to try again fails at once: keep the wait short.
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 2000),
        # A new channel is a new connection: gRPC would share one with the channel that is left for it.
        ("grpc.use_local_subchannel_pool", 1),
    ]
    if round_robin:
        settings.append(("grpc.service_config", _ROUND_ROBIN))
    if is_local(target):
        # gRPC obeys http_proxy even for this machine itself, where a proxy can never help.
        settings.append(("grpc.enable_http_proxy", 0))
    return settings


def is_local(target: str) -> bool:
    """Whether what is sent there stays on this machine; of names, only `localhost` is trusted to."""
    if target.startswith(("unix:", "unix-abstract:")):
        return True
    return is_loopback(urlsplit(f"//{target}").hostname or "")


def is_loopback(host: str) -> bool:
    """Whether an address without a port is this machine's own; of names, only `localhost` is trusted."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def connect(
    flavour: Any,
    target: str,
    credentials: grpc.ChannelCredentials | None,
    settings: list[tuple[str, int | str]],
) -> Any:
    """Make a channel of one of gRPC's flavours, `grpc` or `grpc.aio`; in plain text without credentials."""
    if credentials is None:
        return flavour.insecure_channel(target, options=settings)
    return flavour.secure_channel(target, credentials, options=settings)


class Line:
    """The channel that calls use now, and earlier ones for as long as calls still use those.

    Of either flavour of channel; threads may share it. `metadata` goes with every call.
    """

    def __init__(self, make: Callable[[], Any], metadata: Metadata) -> None:
        self._make = make
        self._metadata = metadata
        self._lock = threading.Lock()
        self._current: Any = None
        self._users: dict[Any, int] = {}
        self._closed = False

    @property
    def metadata(self) -> Metadata:
        """What goes with a call that is made now: the credentials, and what the program is just doing."""
        return (*self._metadata, *tracing.outgoing())

    def take(self) -> Any:
        """Give the channel for a call, a new one where there is none; EarmarkError once closed."""
        with self._lock:
            if self._closed:
                raise EarmarkError("this client has been closed: make a new one")
            if self._current is None:
                self._current = self._make()
            self._users[self._current] = self._users.get(self._current, 0) + 1
            return self._current

    def give_back(self, channel: Any, *, worn: bool = False) -> Any:
        """Take a channel back after a call; give it, to be closed, if nobody will use it again.

        `worn`: it leads to a server that is not to be called again: new calls get another one, which
        asks anew where the server's name leads.
        """
        with self._lock:
            if worn and channel is self._current:
                self._current = None
            self._users[channel] -= 1
            if self._users[channel] or channel is self._current:
                return None
            del self._users[channel]
            return channel

    def close(self) -> list[Any]:
        """Let no more calls begin; give the channels that are to be closed."""
        with self._lock:
            self._closed = True
            return list(self._users)
