"""The options of gRPC: the limits on connections, and when they are closed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from earmark_server.settings import Settings

# Up to this size, a message that is too long is read and rejected with a reason of earmark.v1. gRPC itself
# rejects a longer one by its header, with RESOURCE_EXHAUSTED, before it needs memory.
_READ_BYTES = 128 * 1024 * 1024


def options(settings: Settings, *, shares_port: bool) -> tuple[tuple[str, int], ...]:
    """Return the options of a gRPC server; `shares_port` as for `Server`."""
    return (
        ("grpc.max_receive_message_length", max(_READ_BYTES, settings.max_message_bytes + 1024)),
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
        # A client that has vanished without closing its connection is detected, and its streams end.
        ("grpc.keepalive_time_ms", _milliseconds(settings.keepalive_s)),
        ("grpc.keepalive_timeout_ms", _milliseconds(settings.keepalive_timeout_s)),
        # The same for gRPC's own pings, which measure the bandwidth: while one waits for its answer, it
        # counts as the keepalive ping, and its default timeout is a minute.
        ("grpc.http2.ping_timeout_ms", _milliseconds(settings.keepalive_timeout_s)),
        # Clients may ping too, with or without calls.
        ("grpc.http2.min_ping_interval_without_data_ms", _milliseconds(settings.min_ping_interval_s)),
        ("grpc.keepalive_permit_without_calls", 1),
    )


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
