"""Several HTTP/2 connections to one server, waited for together."""

from __future__ import annotations

import selectors

from benchmarks.loadgen.http2_client import Connection


class Connections:
    """Connections to one server; `connections[i]` is the i-th, and around again."""

    def __init__(self, address: str, method: str, count: int) -> None:
        """Connect; `address` is HOST:PORT, `method` the path of the calls. Raises Http2Error."""
        self._selector = selectors.DefaultSelector()
        self._connections: list[Connection] = []
        for _ in range(count):
            connection = Connection(address, method)
            self._connections.append(connection)
            self._selector.register(connection, selectors.EVENT_READ, connection)

    def __getitem__(self, index: int) -> Connection:
        return self._connections[index % len(self._connections)]

    def wait(self, timeout_s: float) -> None:
        """Send what is ready, wait for answers that long at most, and hand out what came."""
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
        """Close all of them, whatever is open."""
        for connection in self._connections:
            connection.close()
        self._selector.close()
