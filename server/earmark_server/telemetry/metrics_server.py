"""The HTTP server of the metrics port, which anybody may be able to reach."""

from __future__ import annotations

import contextlib
import io
import socket
import threading
from socketserver import TCPServer, ThreadingMixIn
from typing import TYPE_CHECKING, Any

from prometheus_client import MetricsHandler
from prometheus_client.exposition import choose_encoder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import CollectorRegistry

# Connections, each with a thread. A further one closes the oldest: a scrape takes some ten milliseconds, and
# only a client that is up to no good keeps a connection for longer.
_MAX_CONNECTIONS = 16

# The time in which a client has to continue its request.
_TIMEOUT_S = 5.0


class _Handler(MetricsHandler):
    timeout = _TIMEOUT_S

    def do_GET(self) -> None:  # noqa: N802  (BaseHTTPRequestHandler calls it)
        """Respond with the metrics; in the default format if the header Accept is not understood."""
        try:
            choose_encoder(self.headers.get("Accept", ""))
        except (TypeError, ValueError):  # a version that is quoted, or not of numbers
            del self.headers["Accept"]
        super().do_GET()

    def do_HEAD(self) -> None:  # noqa: N802  (BaseHTTPRequestHandler calls it)
        """Respond as to GET, but without the body (RFC 9110, section 9.3.2): probes and proxies send HEAD."""
        connection, response = self.wfile, io.BytesIO()
        self.wfile = response
        try:
            self.do_GET()
        finally:
            self.wfile = connection
        head, end_of_head, _ = response.getvalue().partition(b"\r\n\r\n")
        connection.write(head + end_of_head)


class MetricsServer(ThreadingMixIn, TCPServer):
    """Serves metrics with a bounded number of connections, threads and file descriptors."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, host: str, port: int, registry: CollectorRegistry) -> None:
        """Listen on an address; OSError if that is not possible."""
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        self.address_family = family
        self._lock = threading.Lock()
        self._open: dict[socket.socket, None] = {}  # the oldest first
        handler = type("Handler", (_Handler,), {"registry": registry})
        super().__init__(address[:2], handler)  # type: ignore[arg-type]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Handle a connection on a thread; close the oldest one if there are too many."""
        with self._lock:
            self._open[request] = None
            if len(self._open) > _MAX_CONNECTIONS:
                oldest = next(iter(self._open))
                del self._open[oldest]
                # Its thread then reads the end of the connection, and closes it.
                with contextlib.suppress(OSError):
                    oldest.shutdown(socket.SHUT_RDWR)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection."""
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore a connection that breaks off or is silent."""

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Serve during the block."""
        thread = threading.Thread(target=self.serve_forever, name="earmark-metrics", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self.shutdown()
            self.server_close()
            thread.join()
