"""Refuses new connections before they exist: the kernel drops the requests of some clients to connect.

A client that was cut off would otherwise connect again at once. gRPC needs a while to free the memory of a
closed connection, and more of it if the next one already sends. A dropped request costs the server nothing,
no open connection notices, and the system of the client repeats the request after a second.
"""

from __future__ import annotations

import contextlib
import ctypes
import ipaddress
import socket
import struct
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Collection

    from earmark_server.memory.connections import Connections

_MAX_NETWORKS = 256
"""Beyond this number, the refusals that end first are forgotten: the kernel limits the size of a filter."""

_ATTACH_FILTER = 26  # SO_ATTACH_FILTER of Linux
_DETACH_FILTER = 27

# Instructions of the classic BPF (linux/filter.h). An address is relative to the TCP header, and above
# _IP_HEADER to the IP header.
_LOAD_WORD, _LOAD_BYTE, _AND, _EQUAL, _JUMP, _RETURN = 0x20, 0x30, 0x54, 0x15, 0x05, 0x06
_IP_HEADER = 0x1_0000_0000 - 0x100000  # SKF_NET_OFF
_FLAGS, _SYN, _SYN_AND_ACK = 13, 0x02, 0x12
_VERSION_4 = 0x40
_SOURCE_4, _SOURCE_6 = _IP_HEADER + 12, _IP_HEADER + 8
_KEEP, _DROP = 0xFFFF_FFFF, 0

Network: TypeAlias = "ipaddress.IPv4Network | ipaddress.IPv6Network"
_Instruction: TypeAlias = "tuple[int, int, int, int]"  # what to do, jumps if equal and if not, operand


class Refusals:
    """The clients whose requests to connect are dropped, each for a time."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._until_s: dict[Network | None, float] = {}  # None: everybody
        self._is_applied = True

    @property
    def needs_checks(self) -> bool:
        """Whether somebody is refused, or a change has failed: `expire` has something to do."""
        return bool(self._until_s) or not self._is_applied

    def refuse(self, peers: Collection[str], until_s: float) -> None:
        """Refuse connections from the networks of these peers."""
        if not peers:
            return
        self._until_s.update(dict.fromkeys((_network(peer) for peer in peers), until_s))
        self._apply()

    def refuse_all(self, until_s: float) -> None:
        """Refuse all connections."""
        self._until_s[None] = until_s
        self._apply()

    def refuses(self, peer: str) -> bool:
        """Return whether a peer is refused."""
        return None in self._until_s or _network(peer) in self._until_s

    def expire(self, now_s: float, *, keeps_networks: bool) -> None:
        """End the refusals whose time is over; `keeps_networks`: only those of everybody.

        To be called while `needs_checks`: it also repeats a change that failed.
        """
        over = {
            network
            for network, until_s in self._until_s.items()
            if until_s <= now_s and (network is None or not keeps_networks)
        }
        for network in over:
            del self._until_s[network]
        if over or not self._is_applied:
            self._apply()

    def _apply(self) -> None:
        networks = sorted((each for each in self._until_s if each is not None), key=self._until_s.__getitem__)
        self._is_applied = False
        # Without a free descriptor, no listener is found.
        with contextlib.suppress(OSError):
            for listener in self._connections.listeners():
                self._is_applied = True
                self._apply_to(listener, networks[-_MAX_NETWORKS:])
            return
        self._is_applied = False

    def _apply_to(self, listener: socket.socket, networks: Collection[Network]) -> None:
        with contextlib.suppress(OSError):  # a system without filters
            if not self._until_s:
                listener.setsockopt(socket.SOL_SOCKET, _DETACH_FILTER, 0)
            elif None in self._until_s:
                _attach(listener, [(_RETURN, 0, 0, _DROP)])
            else:
                _attach(listener, _sources_in(networks))


def _network(peer: str) -> Network:
    """Return the address of a peer, in IPv6 its /64 network, because one subscriber has all of it."""
    kind, _, rest = peer.partition(":")
    host = rest.rpartition(":")[0].strip("[]").partition("%")[0]
    return ipaddress.ip_network((host, 32 if kind == "ipv4" else 64), strict=False)


def _sources_in(networks: Collection[Network]) -> list[_Instruction]:
    """Return instructions that drop the packets from some networks."""
    version_4, version_6 = [(_LOAD_WORD, 0, 0, _SOURCE_4)], list[_Instruction]()
    for network in networks:
        address = int(network.network_address)
        if network.version == 4:
            version_4 += [(_EQUAL, 0, 1, address), (_RETURN, 0, 0, _DROP)]
        else:
            version_6 += [
                (_LOAD_WORD, 0, 0, _SOURCE_6),
                (_EQUAL, 0, 3, address >> 96),
                (_LOAD_WORD, 0, 0, _SOURCE_6 + 4),
                (_EQUAL, 0, 1, address >> 64 & 0xFFFF_FFFF),
                (_RETURN, 0, 0, _DROP),
            ]
    keep = (_RETURN, 0, 0, _KEEP)
    version_4.append(keep)
    return [
        (_LOAD_BYTE, 0, 0, _IP_HEADER),
        (_AND, 0, 0, 0xF0),
        (_EQUAL, 1, 0, _VERSION_4),
        (_JUMP, 0, 0, len(version_4)),
        *version_4,
        *version_6,
        keep,
    ]


def _attach(listener: socket.socket, instructions: Collection[_Instruction]) -> None:
    """Drop the requests to connect to a socket that the instructions drop.

    A connection that is accepted at this moment inherits the filter, which keeps all packets but requests.
    """
    program = [
        (_LOAD_BYTE, 0, 0, _FLAGS),
        (_AND, 0, 0, _SYN_AND_ACK),
        (_EQUAL, 1, 0, _SYN),
        (_RETURN, 0, 0, _KEEP),
        *instructions,
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *each) for each in program))
    listener.setsockopt(
        socket.SOL_SOCKET, _ATTACH_FILTER, struct.pack("@HP", len(program), ctypes.addressof(code))
    )
