"""Host names with several addresses: a name server for one name, and an address that does not answer."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_A, _IN = 1, 1


class Name:
    """A name server (RFC 1035) that returns the same IPv4 addresses for every name, and no IPv6 addresses.

    It listens on `address`. `addresses` may be changed; `target` is an address that gRPC resolves with it.
    """

    def __init__(self, addresses: Sequence[str], port: int) -> None:
        self.addresses = list(addresses)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._socket.getsockname()
        self.target = f"dns://127.0.0.1:{self.address[1]}/earmark.test:{port}"
        self._thread = threading.Thread(target=self._answer)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # An empty datagram, because closing the socket does not wake the thread.
        self._socket.sendto(b"", self.address)
        self._thread.join()
        self._socket.close()

    def _answer(self) -> None:
        while True:
            query, asker = self._socket.recvfrom(1500)
            if not query:
                return
            # The question follows the header of 12 bytes: labels up to an empty one, type, class.
            end = query.index(0, 12) + 5
            (kind,) = struct.unpack_from(">H", query, end - 4)
            # The name is a pointer to that of the question; the TTL is 0 seconds.
            records = [
                struct.pack(">HHHIH", 0xC00C, _A, _IN, 0, 4) + socket.inet_aton(address)
                for address in (self.addresses if kind == _A else [])
            ]
            # Flags: response, authoritative, recursion desired and available.
            header = query[:2] + struct.pack(">HHHHH", 0x8580, 1, len(records), 0, 0)
            self._socket.sendto(header + query[12:end] + b"".join(records), asker)


@contextlib.contextmanager
def dead_address(host: str, port: int) -> Iterator[None]:
    """Make an address unresponsive, as if the machine had vanished: connections are not even refused."""
    with contextlib.ExitStack() as held:
        deaf = held.enter_context(socket.socket())
        deaf.bind((host, port))
        # Linux drops new connections when its short queue is full.
        deaf.listen(0)
        for _ in range(8):
            caller = held.enter_context(socket.socket())
            caller.setblocking(False)
            caller.connect_ex((host, port))
        with socket.socket() as probe:
            probe.settimeout(0.5)
            try:
                probe.connect((host, port))
            except TimeoutError:
                pass
            else:
                raise AssertionError("somebody answers")
        yield
