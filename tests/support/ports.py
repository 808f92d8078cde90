"""Free ports of the loopback interface, for servers whose port must be known before they start."""

from __future__ import annotations

import contextlib
import os
import random
import socket

# Below the ports that the kernel gives to outgoing connections. Such a connection may connect to itself if a
# client tries it again and again while no server listens, and then it holds the port.
_FIRST, _LAST = 20_000, 32_767


def _ports_of_this_process() -> range:
    """Return the ports that this process hands out: those of another test process are others."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    size = (_LAST - _FIRST) // workers
    return range(_FIRST + worker * size, _FIRST + (worker + 1) * size)


_PORTS = _ports_of_this_process()
_next = random.randrange(len(_PORTS))


def free_port(count: int = 1) -> int:
    """Return the first of `count` consecutive ports on which no server listens."""
    global _next  # noqa: PLW0603 - a port is not handed out again soon: its server may not have started yet
    while True:
        first = _PORTS[_next % (len(_PORTS) - count)]
        _next += count
        with contextlib.ExitStack() as sockets, contextlib.suppress(OSError):
            for port in range(first, first + count):
                sockets.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return first
