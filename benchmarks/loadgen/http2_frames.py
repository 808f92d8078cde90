"""The bytes of HTTP/2 (RFC 9113) and of gRPC over it: frames, headers and statuses."""

from __future__ import annotations

import base64
import struct
from dataclasses import dataclass
from urllib.parse import unquote

import hpack

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

# Frame types, flags, settings, and an error code.
DATA, HEADERS, PRIORITIES, RESET, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
ACK = END_STREAM = 0x1
END_HEADERS, PADDED, PRIORITY = 0x4, 0x8, 0x20
SET_PUSH, SET_MAX_STREAMS, SET_WINDOW, SET_MAX_FRAME = 2, 3, 4, 5
CANCEL = 8

FRAME_HEAD = struct.Struct(">HBBBI")
"""The length (24 bits, in two parts), type, flags and stream id."""
SETTING = struct.Struct(">HI")
GOAWAY_HEAD = struct.Struct(">II")

DEFAULT_WINDOW = 65_535
LARGEST_WINDOW = 2**31 - 1
DEFAULT_MAX_FRAME = 16_384

UNAVAILABLE, INTERNAL = 14, 13
"""gRPC status codes for failures that the client detects."""


@dataclass(frozen=True, slots=True)
class GrpcStatus:
    """The status of a call: code, message, and the serialized google.rpc.Status, if there is one."""

    code: int
    message: str
    details: bytes = b""


def connection_preface() -> bytes:
    """Return a client's first bytes. They grant the server the largest windows and disable server push."""
    settings = SETTING.pack(SET_PUSH, 0) + SETTING.pack(SET_WINDOW, LARGEST_WINDOW)
    increment = (LARGEST_WINDOW - DEFAULT_WINDOW).to_bytes(4, "big")
    return PREFACE + frame(SETTINGS, 0, 0, settings) + frame(WINDOW, 0, 0, increment)


def frame(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    """Return a frame. Stream id 0 is the connection itself."""
    return frame_head(len(payload), kind, flags, stream_id) + payload


def frame_head(size: int, kind: int, flags: int, stream_id: int) -> bytes:
    """Return a frame's nine-byte header."""
    return FRAME_HEAD.pack(size >> 8, size & 255, kind, flags, stream_id)


def strip_padding(flags: int, payload: bytes) -> bytes:
    """Return the payload of a DATA or HEADERS frame without its padding."""
    return payload[1 : len(payload) - payload[0]] if flags & PADDED else payload


def prefixed(message: bytes) -> bytes:
    """Return a message with gRPC's prefix: the flag for "not compressed", and the length."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def request_headers(address: str, method: str | bytes) -> bytes:
    """Encode the headers of a call without the dynamic table, so that all calls can use the same bytes."""
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": method,
        ":authority": address,
        "te": "trailers",
        "content-type": "application/grpc",
        "user-agent": "earmark-benchmarks",
    }
    return hpack.Encoder().encode([(name, value, True) for name, value in headers.items()])


def parse_trailers(trailers: dict[bytes, bytes]) -> GrpcStatus:
    """Return the status in a call's trailers."""
    if b"grpc-status" not in trailers:
        http_status = trailers.get(b":status", b"?").decode()
        return GrpcStatus(INTERNAL, f"HTTP status {http_status} without a gRPC status")
    # gRPC sends the value of a -bin header as base64 without padding.
    details = trailers.get(b"grpc-status-details-bin", b"")
    return GrpcStatus(
        int(trailers[b"grpc-status"]),
        unquote(trailers.get(b"grpc-message", b"").decode()),
        base64.b64decode(details + b"=" * (-len(details) % 4)),
    )
