"""Fault injection in connections: proxies that cut them, lose responses, or spread them over servers."""

from __future__ import annotations

import contextlib
import enum
import socket
import struct
import threading
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable


class Direction(enum.Enum):
    """The direction of bytes."""

    REQUESTS = enum.auto()
    RESPONSES = enum.auto()


class CuttingProxy:
    """A proxy that cuts each connection after a number of bytes in one direction.

    `cuts` gives for each connection in turn which direction and how many bytes, None for no cut. Every
    other cut is a reset, the rest an orderly close.
    """

    def __init__(self, port: int, cuts: Callable[[], tuple[Direction, int] | None] = lambda: None) -> None:
        self.target_port = port
        self.drops_responses = False
        self.connections = 0
        self.cut_count = 0
        self._cuts = cuts
        self._open: list[tuple[socket.socket, socket.socket]] = []
        self._lock = threading.Lock()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self.cut()

    def cut(self) -> None:
        """Cut all open connections."""
        with self._lock:
            pairs, self._open = self._open, []
        for pair in pairs:
            self._close(*pair)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._listening.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self._next_port()))
                except OSError:  # no server
                    client.close()
                    continue
                self.connections += 1
                with self._lock:
                    self._open.append((client, server))
                cut = self._cuts()
                for direction, source, sink in (
                    (Direction.REQUESTS, client, server),
                    (Direction.RESPONSES, server, client),
                ):
                    limit = cut[1] if cut is not None and cut[0] is direction else None
                    arguments = (source, sink, direction, limit)
                    threading.Thread(target=self._pump, args=arguments, daemon=True).start()

    def _next_port(self) -> int:
        return self.target_port

    def _pump(
        self, source: socket.socket, sink: socket.socket, direction: Direction, limit: int | None
    ) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                if direction is Direction.REQUESTS or not self.drops_responses:
                    sink.sendall(data if limit is None else data[:limit])
                if limit is not None:
                    limit -= len(data)
                    if limit <= 0:
                        self._cut_off(source, sink)
                        break
        self._close(source, sink)

    def _cut_off(self, *pair: socket.socket) -> None:
        self.cut_count += 1
        if self.cut_count % 2:
            for one in pair:
                with contextlib.suppress(OSError):  # l_onoff, l_linger: a reset
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    @staticmethod
    def _close(*pair: socket.socket) -> None:
        for one in pair:
            with contextlib.suppress(OSError):
                # Wakes the thread that reads it. Not before a reset, which the peer must notice first.
                if one.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER) == 0:
                    one.shutdown(socket.SHUT_RDWR)
            one.close()


class BalancingProxy(CuttingProxy):
    """Forwards each connection to the next of several servers; the list may be changed."""

    def __init__(self, *ports: int) -> None:
        self.ports = list(ports)
        super().__init__(0)

    def _next_port(self) -> int:
        return self.ports[self.connections % len(self.ports)]
