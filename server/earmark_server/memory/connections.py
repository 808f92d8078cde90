"""The TCP connections of the server's ports, as the kernel knows them.

gRPC does not tell a server which connections it has. Those without a call are seen only here.
"""

from __future__ import annotations

import contextlib
import errno
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
_UNREAD = struct.Struct("=i")
_BYTES_RECEIVED = struct.Struct("=128xQ")  # tcpi_bytes_received of Linux's struct tcp_info


@dataclass(frozen=True, slots=True)
class Connection:
    """A connection: its peer in gRPC's notation, and the bytes since it was opened.

    Of the bytes that the kernel has received, gRPC has not read all yet.
    """

    peer: str
    received_bytes: int
    read_bytes: int


class Connections:
    """The TCP connections that were accepted on some ports; none where the system lists none."""

    def __init__(self, ports: Collection[int]) -> None:
        self._ports = ports
        self._peers: dict[str, str] = {}  # by the name of the socket, which is unique; "" for other sockets

    def opened(self, ignored_peers: Collection[str] = ()) -> list[Connection]:
        """Return the connections that are open, except those to some peers, which cost less time."""
        return [
            Connection(peer, *_received_and_read_bytes(opened))
            for peer, opened in self._sockets(ignored=ignored_peers)
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

    def listeners(self) -> Iterator[socket.socket]:
        """Yield a duplicate of each socket that accepts connections on the ports; it is closed afterwards.

        Raises OSError if the process has no descriptor left for one of them.
        """
        for name, descriptor in _descriptors():
            if self._peers.get(name):
                continue
            try:
                with _duplicate(descriptor) as opened:
                    if self._has_port(opened) and _accepts(opened):
                        yield opened
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE):
                    raise
                # it has just been closed

    def _sockets(self, ignored: Collection[str] = ()) -> Iterator[tuple[str, socket.socket]]:
        """Yield the peer of each connection, and a duplicate of its socket, which is closed afterwards."""
        known, self._peers = self._peers, {}
        for name, descriptor in _descriptors():
            peer = known.get(name)
            if peer is not None and (not peer or peer in ignored):
                self._peers[name] = peer
                continue
            with contextlib.suppress(OSError), _duplicate(descriptor) as opened:  # it has just been closed
                peer = self._peers[f"socket:[{os.fstat(opened.fileno()).st_ino}]"] = self._peer(opened)
                if peer and peer not in ignored:
                    yield peer, opened

    def _peer(self, opened: socket.socket) -> str:
        """Return the peer of a connection, and "" for another socket."""
        if not self._has_port(opened) or _accepts(opened):
            return ""
        host, port = opened.getpeername()[:2]
        # A socket that accepts both kinds shows IPv4 in this form.
        host = host.removeprefix("::ffff:")
        return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"

    def _has_port(self, opened: socket.socket) -> bool:
        is_tcp = opened.family in (socket.AF_INET, socket.AF_INET6) and opened.type == socket.SOCK_STREAM
        return is_tcp and opened.getsockname()[1] in self._ports


def _descriptors() -> Iterator[tuple[str, int]]:
    """Yield the name and the descriptor of each socket of the process."""
    try:
        descriptors = os.listdir(_DESCRIPTORS)
    except OSError:
        return
    for descriptor in descriptors:
        with contextlib.suppress(OSError):  # it has just been closed
            name = os.readlink(f"{_DESCRIPTORS}/{descriptor}")
            if name.startswith("socket:"):
                yield name, int(descriptor)


def _duplicate(descriptor: int) -> socket.socket:
    """Return a duplicate: a descriptor may be closed, and its number used again, at any moment."""
    return socket.socket(fileno=os.dup(descriptor))


def _accepts(opened: socket.socket) -> bool:
    return bool(opened.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def _received_and_read_bytes(opened: socket.socket) -> tuple[int, int]:
    import fcntl  # Windows has neither, and lists no connections
    import termios

    unread: int = _UNREAD.unpack(fcntl.ioctl(opened, termios.FIONREAD, bytes(_UNREAD.size)))[0]
    info = opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
    received: int = _BYTES_RECEIVED.unpack(info)[0]
    return received, received - unread
