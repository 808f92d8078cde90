"""How gRPC is to treat connections: what it may take of them, and when it gives them up."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from earmark_server.settings import Settings

# Longer messages than allowed get the contract's answer up to this size; beyond it, gRPC itself
# refuses them by their header, with RESOURCE_EXHAUSTED, before they take memory.
_ANSWERED_BYTES = 128 * 1024 * 1024


def options(settings: Settings, *, shares_port: bool) -> tuple[tuple[str, int], ...]:
    """Give the options of a gRPC server; `shares_port` as for `Server`."""
    return (
        ("grpc.max_receive_message_length", max(_ANSWERED_BYTES, settings.max_message_bytes + 1024)),
        # Two servers on one port would share it in silence, each with half of the calls; only
        # workers of one supervisor may.
        ("grpc.so_reuseport", int(shares_port)),
        # Nothing is unpacked (bit 0: as it is): 16 KB could become 16 MB before anybody looks at it.
        ("grpc.compression_enabled_algorithms_bitset", 1),
        # The same for the limit that may be enforced and the one that always is.
        ("grpc.max_metadata_size", settings.max_metadata_bytes),
        ("grpc.absolute_max_metadata_size", settings.max_metadata_bytes),
        ("grpc.max_concurrent_streams", settings.max_calls_per_connection),
        ("grpc.server_handshake_timeout_ms", _milliseconds(settings.handshake_timeout_s)),
        # A client that vanished without a word is noticed, and its streams ended.
        ("grpc.keepalive_time_ms", _milliseconds(settings.keepalive_s)),
        ("grpc.keepalive_timeout_ms", _milliseconds(settings.keepalive_timeout_s)),
        # The same for gRPC's own pings, by which it measures the line: one that waits for its answer is
        # taken for the other, and would have a minute.
        ("grpc.http2.ping_timeout_ms", _milliseconds(settings.keepalive_timeout_s)),
        # Clients may look after their connections in the same way, with or without calls.
        ("grpc.http2.min_ping_interval_without_data_ms", _milliseconds(settings.min_ping_interval_s)),
        ("grpc.keepalive_permit_without_calls", 1),
    )


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
