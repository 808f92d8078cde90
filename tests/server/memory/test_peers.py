"""The names of connections, which gRPC and the kernel state in different forms."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from earmark_server.memory.connections import Connections
from earmark_server.memory.peers import connection_of


@pytest.mark.parametrize(
    ("peer", "connection"),
    [
        ("ipv4:127.0.0.1:50051", "ipv4:127.0.0.1:50051"),
        ("ipv6:%5Bfd00::2%5D:50051", "ipv6:[fd00::2]:50051"),
        ("ipv6:%5Bfe80::1%25eth0%5D:50051", "ipv6:[fe80::1]:50051"),
        ("ipv6:%5Bfe80::1%2512%5D:50051", "ipv6:[fe80::1]:50051"),
    ],
)
def test_a_link_local_address_has_no_scope(peer: str, connection: str) -> None:
    assert connection_of(peer) == connection


def test_the_kernel_names_link_local_connections_alike() -> None:
    address = link_local_address()
    tcp6 = socket.AF_INET6, socket.SOCK_STREAM
    with socket.socket(*tcp6) as listener, socket.socket(*tcp6) as client:
        listener.bind(address)
        listener.listen()
        client.connect(listener.getsockname())
        accepted, _ = listener.accept()
        with accepted:
            (connection,) = Connections({listener.getsockname()[1]}).opened()
            host, port, _, scope = client.getsockname()
            assert connection.peer == connection_of(f"ipv6:%5B{host}%25{scope}%5D:{port}")


def link_local_address() -> tuple[str, int, int, int]:
    """Return a link-local address of this machine, with any port."""
    try:
        lines = Path("/proc/net/if_inet6").read_text().splitlines()
    except OSError:
        pytest.skip("no list of IPv6 addresses")
    for digits, index, *_ in (line.split() for line in lines):
        if digits.startswith("fe80"):
            host = ":".join(digits[i : i + 4] for i in range(0, 32, 4))
            return host, 0, 0, int(index, 16)
    pytest.skip("no link-local address")
