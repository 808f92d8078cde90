"""The options of gRPC: the limits on connections, and when they are closed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from earmark_server.memory.peers import WINDOW_BYTES

if TYPE_CHECKING:
    from earmark_server.settings import Settings

# A message that exceeds its limit by at most this much is read and rejected with a reason of earmark.v1. gRPC
# itself rejects a longer one by its header, with RESOURCE_EXHAUSTED, before it needs memory.
_EXCESS_BYTES = 64 * 1024

# A health check states the name of a service, and a client that probes has nothing else to send.
_MAX_HEALTH_MESSAGE_BYTES = 512


def options(settings: Settings, *, shares_port: bool) -> tuple[tuple[str, int], ...]:
    """Return the options of the server's port; `shares_port` as for `Server`."""
    return _options(settings, settings.max_message_bytes + _EXCESS_BYTES, shares_port=shares_port)


def health_port_options(settings: Settings) -> tuple[tuple[str, int], ...]:
    """Return the options of the health port, which anybody may call."""
    return _options(settings, _MAX_HEALTH_MESSAGE_BYTES, shares_port=False)


def _options(settings: Settings, max_message_bytes: int, *, shares_port: bool) -> tuple[tuple[str, int], ...]:
    return (
        ("grpc.max_receive_message_length", max_message_bytes),
        # gRPC would otherwise adapt this window to the line: up to 19 MB for one fast stream. Over a line
        # with a round-trip time of 100 ms, it allows about 2 MB/s (docs/lab-notes/cost.md).
        ("grpc.http2.lookahead_bytes", WINDOW_BYTES),
        ("grpc.http2.bdp_probe", 0),
        # Otherwise two servers on one port would silently share it, each with half of the calls. Only workers
        # of one supervisor may.
        ("grpc.so_reuseport", int(shares_port)),
        # No compression (bit 0: identity), because 16 KB could decompress to 16 MB before any check.
        ("grpc.compression_enabled_algorithms_bitset", 1),
        # The soft and the hard limit are the same.
        ("grpc.max_metadata_size", settings.max_metadata_bytes),
        ("grpc.absolute_max_metadata_size", settings.max_metadata_bytes),
        ("grpc.max_concurrent_streams", settings.max_calls_per_connection),
        ("grpc.server_handshake_timeout_ms", _milliseconds(settings.handshake_timeout_s)),
        # Until a client has acknowledged the limit on metadata, it may send headers of 16 MB.
        ("grpc.http2.settings_timeout", _milliseconds(settings.handshake_timeout_s)),
        # A client that has vanished without closing its connection is detected, and its streams end.
        ("grpc.keepalive_time_ms", _milliseconds(settings.keepalive_s)),
        ("grpc.keepalive_timeout_ms", _milliseconds(settings.keepalive_timeout_s)),
        # The same for gRPC's own pings: while one waits for its answer, it counts as the keepalive ping, and
        # its default timeout is a minute.
        ("grpc.http2.ping_timeout_ms", _milliseconds(settings.keepalive_timeout_s)),
        # Clients may ping too, with or without calls. With a limit, gRPC adds an error for each ping that
        # arrives before the connection is closed, in time that is quadratic in their number: a flood of pings
        # delays other streams by a second. Without a limit, it costs no more than the answers.
        ("grpc.http2.min_ping_interval_without_data_ms", _milliseconds(settings.min_ping_interval_s)),
        ("grpc.keepalive_permit_without_calls", 1),
    )


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
