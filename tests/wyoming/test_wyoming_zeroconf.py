"""`earmark wyoming --zeroconf`: the package zeroconf discovers the service on the loopback interface."""

from __future__ import annotations

import asyncio
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from support.deadlines import DEADLINE_S
from support.ports import free_port

pytest.importorskip("zeroconf")
pytest.importorskip("wyoming")

import zeroconf
from support.wyoming_bridge import bridge, describe

if TYPE_CHECKING:
    from collections.abc import Iterator

KIND = "_wyoming._tcp.local."


class Browser:
    """The services that are announced now, by name, with their addresses and ports."""

    def __init__(self) -> None:
        self.services: dict[str, tuple[list[str], int | None]] = {}
        self._changed = threading.Condition()

    # The names of the methods are those that zeroconf calls.
    def add_service(self, network: zeroconf.Zeroconf, kind: str, name: str) -> None:
        info = network.get_service_info(kind, name, timeout=1000 * DEADLINE_S)
        assert info is not None
        with self._changed:
            self.services[name.removesuffix(f".{KIND}")] = (info.parsed_addresses(), info.port)
            self._changed.notify_all()

    def remove_service(self, network: zeroconf.Zeroconf, kind: str, name: str) -> None:
        with self._changed:
            del self.services[name.removesuffix(f".{KIND}")]
            self._changed.notify_all()

    update_service = add_service

    def wait_for(self, *names: str) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: set(self.services) == set(names), DEADLINE_S), self.services


@contextmanager
def browser() -> Iterator[Browser]:
    """Browse as Home Assistant does."""
    found = Browser()
    with zeroconf.Zeroconf(interfaces=["127.0.0.1"]) as network:
        zeroconf.ServiceBrowser(network, KIND, found)
        yield found


@pytest.mark.slow
def test_the_service_is_discovered_and_serves_where_it_says(address: str) -> None:
    name = f"Kitchen {free_port()}"
    with browser() as found, bridge(address, "--zeroconf", name) as (port, running_bridge):
        running_bridge.until("serving satellites")
        found.wait_for(name)
        assert found.services[name] == (["127.0.0.1"], port)
        (program,) = asyncio.run(describe(port)).wake
        assert [one.name for one in program.models] == ["low", "mid", "high"]
        with bridge(address, "--zeroconf", f"{name} 2") as (other_port, other):
            other.until("serving satellites")
            found.wait_for(name, f"{name} 2")
            assert found.services[f"{name} 2"] == (["127.0.0.1"], other_port)
            running_bridge.process.send_signal(signal.SIGTERM)
            assert running_bridge.process.wait(DEADLINE_S) == 0
            found.wait_for(f"{name} 2")
    assert not any("Traceback" in line for line in running_bridge.lines + other.lines)


def test_a_name_that_cannot_be_announced_does_not_stop_the_service(address: str) -> None:
    with bridge(address, "--zeroconf", "x" * 100) as (port, running_bridge):
        running_bridge.until("cannot announce the service: .* Enter its address in Home Assistant")
        running_bridge.until("serving satellites")
        assert asyncio.run(describe(port)).wake
