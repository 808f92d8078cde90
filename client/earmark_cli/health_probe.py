"""`earmark health` for supervisors that run it every few seconds: one RPC, without importing gRPC.

The complete command imports gRPC and the options of all commands, which costs 0.3 s of CPU. The probe makes
the same call, `grpc.health.v1.Health/Check`, in HTTP/2 frames (RFC 9113) over a socket, for a tenth of that.
It handles a server at HOST:PORT with the credentials in the environment. In every other case, and if there is
no clear answer, `probe` returns None: the complete command then makes the call, and explains what failed.
"""

from __future__ import annotations

import os
import re
import socket

from earmark_cli.output.console import print_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_TIMEOUT_S = 3
_MAX_ANSWER_BYTES = 65536
_STATUSES = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")  # of grpc.health.v1
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _GOAWAY = 0, 1, 3, 4, 7
_END_STREAM, _END_HEADERS = 1, 4


def probe(arguments: Sequence[str]) -> int | None:
    """Print the health of the server; return the exit code, or None if the complete command must do it."""
    if len(arguments) not in {0, 2} or list(arguments[:1]) not in ([], ["--server"]):
        return None
    address = arguments[1] if arguments else os.environ.get("EARMARK_SERVER") or "localhost:50051"
    found = re.fullmatch(r"([A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\]):([0-9]{1,5})", address)
    if found is None:
        return None
    try:
        status = _check(found[1].strip("[]"), int(found[2]), address)
        if status is None:
            return None
        print_line(f"{address}: {status}")
    except (OSError, ValueError):  # a timeout, a failed handshake, an unreadable certificate, a closed pipe
        return None
    return 0 if status == "SERVING" else 1


def _check(host: str, port: int, authority: str) -> str | None:
    ca, token = os.environ.get("EARMARK_CA"), os.environ.get("EARMARK_TOKEN", "").strip()
    local = host in {"localhost", "::1"} or host.startswith("127.")
    others = ("EARMARK_TLS", "EARMARK_CERTIFICATE", "EARMARK_KEY")
    if not ca and (any(os.environ.get(name) for name in others) or (token and not local)):
        return None
    if not local and any(os.environ.get(name) for name in ("grpc_proxy", "https_proxy", "http_proxy")):
        return None
    with socket.create_connection((host, port), timeout=_TIMEOUT_S) as connection:
        if not ca:
            return _call(connection, "http", authority, token)
        import ssl

        context = ssl.create_default_context(cafile=ca)
        context.set_alpn_protocols(["h2"])
        if certificate := os.environ.get("EARMARK_CERTIFICATE"):
            context.load_cert_chain(certificate, os.environ.get("EARMARK_KEY"))
        with context.wrap_socket(connection, server_hostname=host) as encrypted:
            return _call(encrypted, "https", authority, token)


def _call(connection: socket.socket, scheme: str, authority: str, token: str | None) -> str | None:
    """Return the status of the server, or None if the call fails."""
    headers = [
        (":method", "POST"),
        (":scheme", scheme),
        (":path", "/grpc.health.v1.Health/Check"),
        (":authority", authority),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ]
    if token:
        headers.append(("authorization", f"Bearer {token}"))
    # HPACK (RFC 7541, 6.2.2): each header is a literal that is not indexed, with its name.
    block = b"".join(b"\0" + _string(name) + _string(value) for name, value in headers)
    connection.sendall(
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        + _frame(_SETTINGS, 0, 0, b"")
        + _frame(_HEADERS, _END_HEADERS, 1, block)
        + _frame(_DATA, _END_STREAM, 1, bytes(5))  # an empty message: the health of the whole server
    )
    for kind, stream, flags, payload in _frames(connection):
        if kind == _DATA and stream == 1 and len(payload) in {5, 7}:
            # An empty message is the status 0; otherwise it is field 1 with the status.
            number = payload[6] if payload[5:6] == b"\x08" else 0
            return _STATUSES[number] if number < len(_STATUSES) else None
        if kind in {_RST_STREAM, _GOAWAY} or (kind == _HEADERS and flags & _END_STREAM):
            return None
    return None


def _string(text: str) -> bytes:
    encoded = text.encode("ascii")
    if len(encoded) < 127:
        return bytes([len(encoded)]) + encoded
    if len(encoded) < 127 + 128:
        return bytes([127, len(encoded) - 127]) + encoded
    raise ValueError("longer than any token of Earmark")


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def _frames(connection: socket.socket) -> Iterator[tuple[int, int, int, bytes]]:
    """Yield kind, stream, flags and payload of each frame, until the connection ends."""
    received, total = b"", 0
    while total < _MAX_ANSWER_BYTES and (data := connection.recv(_MAX_ANSWER_BYTES)):
        received, total = received + data, total + len(data)
        while len(received) >= 9 and len(received) >= (end := 9 + int.from_bytes(received[:3], "big")):
            yield received[3], int.from_bytes(received[5:9], "big"), received[4], received[9:end]
            received = received[end:]
