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


class Connections:
    """The TCP connections that were accepted on some ports; none where the system lists none."""

    def __init__(self, ports: Collection[int]) -> None:
        self._ports = ports
        self._peers: dict[str, str] = {}  # by the name of the socket, which is unique; "" for other sockets

    def opened(self, ignored_peers: Collection[str] = ()) -> list[Connection]:
        """Return the connections that are open, except those to some peers, which cost less time."""
        return [
            Connection(peer, _received_bytes(opened)) for peer, opened in self._sockets(ignored=ignored_peers)
        ]

    def close(self, peers: Collection[str]) -> None:
        """Shut down the connections to these peers. gRPC then notices that they have ended.

        The bytes that they have sent and gRPC has not read, up to 6 MB each, are discarded.
        """
        discarded = bytearray(_DISCARDED_BYTES)
        for peer, opened in self._sockets():
            if peer in peers:
                with contextlib.suppress(OSError):  # it has just ended
                    opened.shutdown(socket.SHUT_RDWR)
                    while opened.recv_into(discarded, flags=socket.MSG_TRUNC | socket.MSG_DONTWAIT):
                        pass

    def _sockets(self, ignored: Collection[str] = ()) -> Iterator[tuple[str, socket.socket]]:
        """Yield the peer of each connection, and a duplicate of its socket, which is closed afterwards."""
        try:
            descriptors = os.listdir(_DESCRIPTORS)
        except OSError:
            return
        known, self._peers = self._peers, {}
        for descriptor in descriptors:
            with contextlib.suppress(OSError):  # it has just been closed
                name = os.readlink(f"{_DESCRIPTORS}/{descriptor}")
                if not name.startswith("socket:"):
                    continue
                peer = known.get(name)
                if peer is not None and (not peer or peer in ignored):
                    self._peers[name] = peer
                    continue
                # A descriptor may be closed, and its number used again, at any moment, but not that of a
                # duplicate.
                with socket.socket(fileno=os.dup(int(descriptor))) as opened:
                    name = f"socket:[{os.fstat(opened.fileno()).st_ino}]"
                    peer = self._peers[name] = self._peer(opened)
                    if peer and peer not in ignored:
                        yield peer, opened

    def _peer(self, opened: socket.socket) -> str:
        """Return the peer of a connection, and "" for another socket."""
        if opened.family not in (socket.AF_INET, socket.AF_INET6) or opened.type != socket.SOCK_STREAM:
            return ""
        if opened.getsockname()[1] not in self._ports or opened.getsockopt(
            socket.SOL_SOCKET, socket.SO_ACCEPTCONN
        ):
            return ""
        host, port = opened.getpeername()[:2]
        # A socket that accepts both kinds shows IPv4 in this form.
        host = host.removeprefix("::ffff:")
        return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"


def _received_bytes(opened: socket.socket) -> int:
    info = opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
    received_bytes: int = _BYTES_RECEIVED.unpack(info)[0]
    return received_bytes
