"""Several HTTP/2 connections to one server, polled together."""

from __future__ import annotations

import selectors

from benchmarks.loadgen.http2_client import Connection


class Connections:
    """Connections to one server. `connections[i]` is the i-th, modulo their number."""

    def __init__(self, address: str, method: str, count: int, source_host: str = "") -> None:
        """Connect to `address` (HOST:PORT); `method` is the path of all calls. Raises Http2Error.

        `source_host`: the address of this machine to connect from, or any.
        """
        self._selector = selectors.DefaultSelector()
        self._connections: list[Connection] = []
        for _ in range(count):
            connection = Connection(address, method, source_host)
            self._connections.append(connection)
            self._selector.register(connection, selectors.EVENT_READ, connection)

    def __getitem__(self, index: int) -> Connection:
        return self._connections[index % len(self._connections)]

    def wait(self, timeout_s: float) -> None:
        """Send what is queued, wait up to `timeout_s` for responses, and notify the handlers of the calls."""
        for connection in self._connections:
            if connection.has_output:
                self._flush(connection)
        for key, events in self._selector.select(timeout_s):
            connection = key.data
            if events & selectors.EVENT_READ:
                connection.receive()
            if connection.closed:
                self._selector.unregister(connection)
            elif connection.has_output or events & selectors.EVENT_WRITE:
                self._flush(connection)

    def _flush(self, connection: Connection) -> None:
        was_blocked = connection.blocked
        connection.flush()
        if connection.blocked != was_blocked and not connection.closed:
            writing = selectors.EVENT_WRITE if connection.blocked else 0
            self._selector.modify(connection, selectors.EVENT_READ | writing, connection)

    def close(self) -> None:
        """Close all connections, even if calls are open."""
        for connection in self._connections:
            connection.close()
        self._selector.close()
