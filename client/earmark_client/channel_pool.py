"""gRPC channels: their options, and the pool from which both clients acquire them."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from earmark.v1 import keyword_spotting_service_pb2_grpc
from grpc_health.v1 import health_pb2_grpc

from earmark_client import tracing
from earmark_client.addresses import grpc_target
from earmark_client.audio import is_number
from earmark_client.connection_route import is_local_target
from earmark_client.credentials import channel_credentials, token_metadata
from earmark_client.errors import EarmarkError, InvalidRequestError, client_closed

if TYPE_CHECKING:
    from collections.abc import Callable

    from earmark_client.credentials import Metadata, Tls

# Generated without types. Both work with the channels of `grpc` and of `grpc.aio`.
SpottingStub: Any = keyword_spotting_service_pb2_grpc.KeywordSpottingServiceStub
HealthStub: Any = health_pb2_grpc.HealthStub

# Use only servers whose health is SERVING (https://grpc.io/docs/guides/health-checking), so that a
# draining server gets no new calls.
_ROUND_ROBIN = json.dumps(
    {"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": ""}}
)

# More would overflow in gRPC, which then does not wait at all.
_LONGEST_TIMEOUT_S = 86_400

ChannelOptions = list[tuple[str, int | str]]
Channel = TypeVar("Channel")


def channel_options(target: str, connect_timeout_s: float, *, round_robin: bool = False) -> ChannelOptions:
    """Return the options of a channel on which no call waits long for an unreachable server."""
    options: ChannelOptions = [
        # This is also the deadline of one connection attempt, 20 s by default.
        ("grpc.min_reconnect_backoff_ms", max(100, int(connect_timeout_s * 1000))),
        ("grpc.dns_ares_query_timeout", max(100, int(connect_timeout_s * 1000))),
        # Detect within 20 s that a server has vanished, also while nothing is sent. The service
        # allows one ping every 10 s.
        ("grpc.keepalive_time_ms", 12_000),
        ("grpc.keepalive_timeout_ms", 8_000),
        ("grpc.http2.max_pings_without_data", 0),
        # gRPC's bandwidth probes count as keepalive pings, but their own timeout is 60 s.
        ("grpc.http2.ping_timeout_ms", 8_000),
        # A call that starts while gRPC waits to reconnect fails at once, so keep that wait short.
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 2000),
        # Open a new connection for a new channel. By default channels share a connection, and the
        # new channel would use the broken connection of the old one.
        ("grpc.use_local_subchannel_pool", 1),
    ]
    if round_robin:
        options.append(("grpc.service_config", _ROUND_ROBIN))
    if is_local_target(target):
        # gRPC uses http_proxy for loopback addresses too, where a proxy cannot work.
        options.append(("grpc.enable_http_proxy", 0))
    return options


def timeout_s(name: str, value: float) -> float:
    """Return the time-out of a client's argument; InvalidRequestError for what gRPC cannot use."""
    if not is_number(value) or not 0 <= value <= _LONGEST_TIMEOUT_S:
        raise InvalidRequestError(
            f"{name} must be 0 to {_LONGEST_TIMEOUT_S} s, not {value!r}", reason="BAD_CONFIG"
        )
    return float(value)


class ChannelPool(Generic[Channel]):
    """Channels to one server: a current one for new calls, and older ones until their calls end.

    `insecure_channel` and `secure_channel` are those functions of `grpc` or of `grpc.aio`. Threads may
    share a pool. Raises InvalidRequestError for an address, a time-out, a certificate or a token that cannot
    be used.
    """

    def __init__(
        self,
        insecure_channel: Callable[..., Channel],
        secure_channel: Callable[..., Channel],
        *,
        address: str,
        tls: bool | Tls,
        token: str | None,
        connect_timeout_s: float,
        round_robin: bool,
    ) -> None:
        self.target = grpc_target(address)
        self._insecure_channel, self._secure_channel = insecure_channel, secure_channel
        self.connect_timeout_s = timeout_s("connect_timeout_s", connect_timeout_s)
        self._options = channel_options(self.target, self.connect_timeout_s, round_robin=round_robin)
        self._credentials = channel_credentials(tls)
        is_private = self._credentials is not None or is_local_target(self.target)
        self._token_metadata = token_metadata(token, is_private=is_private)
        self._lock = threading.Lock()
        self._current: Channel | None = None
        self._calls: dict[Channel, int] = {}
        self._closed = False

    @property
    def call_metadata(self) -> Metadata:
        """The metadata of a call that starts now: the token, and the current trace context."""
        return (*self._token_metadata, *tracing.current_context())

    def acquire(self) -> Channel:
        """Return a channel for one call, opened if there is none. Raises EarmarkError once closed."""
        with self._lock:
            if self._closed:
                raise EarmarkError("this client has been closed: create a new one")
            if self._current is None:
                self._current = self._open()
            self._calls[self._current] = self._calls.get(self._current, 0) + 1
            return self._current

    def stub(self, kind: Any, channel: Channel) -> Any:
        """Return a stub on an acquired channel. Raises ConnectionLostError once closed.

        gRPC crashes the process if a stub is made on a channel that another thread has closed.
        """
        with self._lock:
            if self._closed:
                raise client_closed()
            return kind(channel)

    def release(self, channel: Channel, *, discard: bool = False) -> Channel | None:
        """Release a channel after a call; return it if the caller is to close it, else None.

        `discard`: use another channel for new calls. That one resolves the server's name again, so it
        may lead to another server.
        """
        with self._lock:
            if discard and channel is self._current:
                self._current = None
            self._calls[channel] -= 1
            if self._calls[channel] or channel is self._current:
                return None
            del self._calls[channel]
            return channel

    def discard_all(self) -> None:
        """Use new channels for new calls, and forget the others, whose event loop is closed."""
        with self._lock:
            self._current = None
            self._calls.clear()

    def close(self) -> list[Channel]:
        """Stop new calls; return all channels, which the caller is to close."""
        with self._lock:
            self._closed = True
            return list(self._calls)

    def _open(self) -> Channel:
        if self._credentials is None:
            return self._insecure_channel(self.target, options=self._options)
        return self._secure_channel(self.target, self._credentials, options=self._options)
