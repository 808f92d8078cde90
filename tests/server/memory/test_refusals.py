"""The kernel drops the requests to connect that are refused, and nothing else."""

from __future__ import annotations

import errno
import os
import socket
import sys
import time
from typing import TYPE_CHECKING

import pytest
from earmark_server.memory.connections import Connections
from earmark_server.memory.refusals import Refusals
from support.deadlines import DEADLINE_S

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems do not filter requests")

_NOT_ANSWERED_S = 0.2


class Port:
    """A port that accepts IPv4 and IPv6, and refuses some clients."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self.number: int = listener.getsockname()[1]
        self.refusals = Refusals(Connections({self.number}))

    def answers(self, source: str) -> bool:
        try:
            socket.create_connection(self._address(source), _NOT_ANSWERED_S, (source, 0)).close()
        except TimeoutError:
            return False
        return True

    def connected(self, source: str) -> tuple[socket.socket, socket.socket]:
        client = socket.create_connection(self._address(source), DEADLINE_S, (source, 0))
        return client, self._listener.accept()[0]

    def _address(self, source: str) -> tuple[str, int]:
        return ("::1" if ":" in source else "127.0.0.1"), self.number


@pytest.fixture
def port() -> Iterator[Port]:
    with socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener:
        yield Port(listener)


def test_only_the_clients_that_are_refused_cannot_connect(port: Port) -> None:
    others = [f"ipv4:10.0.0.{i}:1" for i in range(1, 30)] + [f"ipv6:[2001:db8:{i}::1]:1" for i in range(29)]
    port.refusals.refuse([*others, "ipv4:127.0.0.2:1"], time.monotonic() + DEADLINE_S)
    assert not port.answers("127.0.0.2")
    assert port.answers("127.0.0.3")
    assert port.answers("::1")
    port.refusals.refuse(["ipv6:[::2]:1"], time.monotonic() + DEADLINE_S)  # of the /64 network of ::1
    assert not port.answers("::1")
    assert not port.answers("127.0.0.2")
    assert port.answers("127.0.0.3")


def test_a_refusal_ends(port: Port) -> None:
    port.refusals.refuse(["ipv4:127.0.0.2:1"], 10.0)
    port.refusals.refuse(["ipv4:127.0.0.3:1"], 20.0)
    port.refusals.expire(10.0, keeps_networks=True)
    assert not port.answers("127.0.0.2")
    port.refusals.expire(10.0, keeps_networks=False)
    assert port.answers("127.0.0.2")
    assert not port.answers("127.0.0.3")
    port.refusals.refuse_all(25.0)
    assert not port.answers("127.0.0.2")
    assert not port.answers("::1")
    port.refusals.expire(20.0, keeps_networks=False)
    assert not port.answers("127.0.0.3")
    port.refusals.expire(25.0, keeps_networks=False)
    assert port.answers("127.0.0.3")
    assert port.answers("::1")


@pytest.mark.parametrize("network", ["ipv4:10.0.{}.1:1", "ipv6:[2001:db8:{}::1]:1"])
def test_of_more_clients_than_a_filter_holds_the_first_are_forgotten(port: Port, network: str) -> None:
    port.refusals.refuse(["ipv4:127.0.0.2:1"], 10.0)
    port.refusals.refuse([network.format(i) for i in range(255)], 11.0)
    assert not port.answers("127.0.0.2")
    port.refusals.refuse(["ipv4:127.0.0.3:1"], 12.0)
    assert port.answers("127.0.0.2")
    assert not port.answers("127.0.0.3")
    assert port.answers("127.0.0.4")
    assert port.answers("::1")


def test_open_connections_do_not_notice(port: Port) -> None:
    client, accepted = port.connected("127.0.0.2")
    with client, accepted:
        port.refusals.refuse_all(10.0)
        client.sendall(b"a")
        assert accepted.recv(1) == b"a"
        accepted.sendall(b"b")
        assert client.recv(1) == b"b"
        client.close()
        assert accepted.recv(1) == b""


def test_a_connection_that_is_accepted_meanwhile_works(port: Port) -> None:
    """It inherits the filter of the port."""
    port.refusals.refuse(["ipv4:127.0.0.3:1"], 10.0)
    client, accepted = port.connected("127.0.0.2")
    with client, accepted:
        client.sendall(b"a")
        assert accepted.recv(1) == b"a"


def test_a_client_that_waits_is_accepted_afterwards(port: Port) -> None:
    """Its system repeats the request after a second."""
    port.refusals.refuse_all(10.0)
    with socket.socket() as client:
        client.setblocking(False)
        client.connect_ex(("127.0.0.1", port.number))
        time.sleep(_NOT_ANSWERED_S)
        port.refusals.expire(10.0, keeps_networks=False)
        client.settimeout(DEADLINE_S)
        client.sendall(b"a")


@pytest.mark.parametrize("call", ["listdir", "dup"])
def test_a_refusal_that_could_not_be_ended_for_lack_of_a_descriptor_is_ended_later(
    port: Port, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail(_: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    port.refusals.refuse_all(10.0)
    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        port.refusals.expire(10.0, keeps_networks=False)
    assert not port.answers("127.0.0.2")
    port.refusals.expire(11.0, keeps_networks=False)
    assert port.answers("127.0.0.2")
