"""The TCP connections of the server's ports, as the kernel knows them.

gRPC does not tell a server which connections it has. Those without a call are seen only here.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

_DESCRIPTORS = "/proc/self/fd"
_DISCARDED_BYTES = 1 << 20
_INFO_BYTES = 136
_BYTES_RECEIVED = struct.Struct("=128xQ")  # tcpi_bytes_received of Linux's struct tcp_info


@dataclass(frozen=True, slots=True)
class Connection:
    """A connection: its peer in gRPC's notation, and the bytes that it has received since it was opened."""

    peer: str
    received_bytes: int


def connections(ports: Collection[int]) -> list[Connection]:
    """Return the TCP connections that were accepted on these ports; none where the system lists none."""
    return [Connection(peer, _received_bytes(opened)) for peer, opened in _opened(ports)]


def close(ports: Collection[int], peers: Collection[str]) -> None:
    """Shut down the connections on these ports to these peers. gRPC then notices that they have ended.

    The bytes that they have sent and gRPC has not read, up to 6 MB each, are discarded.
    """
    discarded = bytearray(_DISCARDED_BYTES)
    for peer, opened in _opened(ports):
        if peer in peers:
            with contextlib.suppress(OSError):  # it has just ended
                opened.shutdown(socket.SHUT_RDWR)
                while opened.recv_into(discarded, flags=socket.MSG_TRUNC | socket.MSG_DONTWAIT):
                    pass


def _opened(ports: Collection[int]) -> Iterator[tuple[str, socket.socket]]:
    """Yield the peer of each connection, and a duplicate of its socket, which is closed afterwards."""
    try:
        names = os.listdir(_DESCRIPTORS)
    except OSError:
        return
    for name in names:
        # A descriptor may be closed, and its number used again, at any moment, but not that of a duplicate.
        with contextlib.suppress(OSError):
            if not os.readlink(f"{_DESCRIPTORS}/{name}").startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(name))) as opened:
                if opened.family not in (socket.AF_INET, socket.AF_INET6):
                    continue
                if opened.type == socket.SOCK_STREAM and opened.getsockname()[1] in ports:
                    yield _peer(opened), opened


def _received_bytes(opened: socket.socket) -> int:
    info = opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
    received_bytes: int = _BYTES_RECEIVED.unpack(info)[0]
    return received_bytes


def _peer(opened: socket.socket) -> str:
    host, port = opened.getpeername()[:2]
    # A socket that accepts both kinds shows IPv4 in this form.
    host = host.removeprefix("::ffff:")
    return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"
