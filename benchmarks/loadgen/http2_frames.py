"""The bytes of HTTP/2 (RFC 9113) and of gRPC in it: frames, headers, statuses."""

from __future__ import annotations

import base64
import struct
from dataclasses import dataclass
from urllib.parse import unquote

import hpack

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

# Types of frames, their flags, settings, and an error.
DATA, HEADERS, RESET, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = 0, 1, 3, 4, 5, 6, 7, 8, 9
ACK = END_STREAM = 0x1
END_HEADERS, PADDED, PRIORITY = 0x4, 0x8, 0x20
SET_PUSH, SET_MAX_STREAMS, SET_WINDOW, SET_MAX_FRAME = 2, 3, 4, 5
CANCEL = 8

FRAME_HEAD = struct.Struct(">HBBBI")
"""Length (24 bits, in two parts), type, flags, stream."""
SETTING = struct.Struct(">HI")
GOAWAY_HEAD = struct.Struct(">II")

DEFAULT_WINDOW = 65_535
LARGEST_WINDOW = 2**31 - 1
DEFAULT_MAX_FRAME = 16_384

UNAVAILABLE, INTERNAL = 14, 13
"""gRPC's statuses for what the server did not say itself."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a call ended: the gRPC status code and message, and the serialized google.rpc.Status, if any."""

    code: int
    message: str
    details: bytes = b""


def opening() -> bytes:
    """Make what a client says first: the server may send as much as can be allowed, and push nothing."""
    settings = SETTING.pack(SET_PUSH, 0) + SETTING.pack(SET_WINDOW, LARGEST_WINDOW)
    more = (LARGEST_WINDOW - DEFAULT_WINDOW).to_bytes(4, "big")
    return PREFACE + frame(SETTINGS, 0, 0, settings) + frame(WINDOW, 0, 0, more)


def frame(kind: int, flags: int, number: int, payload: bytes) -> bytes:
    """Make a frame of a stream, or of the connection, which is number 0."""
    return frame_head(len(payload), kind, flags, number) + payload


def frame_head(size: int, kind: int, flags: int, number: int) -> bytes:
    """Make the nine bytes before a payload."""
    return FRAME_HEAD.pack(size >> 8, size & 255, kind, flags, number)


def unpadded(flags: int, payload: bytes) -> bytes:
    """Take the padding off the payload of DATA or HEADERS, if it has some."""
    return payload[1 : len(payload) - payload[0]] if flags & PADDED else payload


def prefixed(message: bytes) -> bytes:
    """Put gRPC's prefix, uncompressed and the length, before a message."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def request_headers(address: str, method: str) -> bytes:
    """Encode the headers of a call, without an entry in any table: the same bytes do for every call."""
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


def ending_of(trailers: dict[bytes, bytes]) -> Ending:
    """Read how a call ended."""
    if b"grpc-status" not in trailers:
        return Ending(INTERNAL, f"HTTP status {trailers.get(b':status', b'?').decode()} without gRPC's own")
    # A -bin value is base64 without its padding, by gRPC's protocol.
    details = trailers.get(b"grpc-status-details-bin", b"")
    return Ending(
        int(trailers[b"grpc-status"]),
        unquote(trailers.get(b"grpc-message", b"").decode()),
        base64.b64decode(details + b"=" * (-len(details) % 4)),
    )
