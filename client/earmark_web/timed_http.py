"""HTTP connections that must send their request in time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    import asyncio

_REQUEST_TIMEOUT_S = 5.0


class TimedHttp(H11Protocol):
    """Closes a connection on which no complete request head arrives in time.

    uvicorn would wait for ever, and each connection counts against its limit.
    """

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the time for the first request."""
        super().connection_made(transport)
        self._start_timer()

    def data_received(self, data: bytes) -> None:
        """Start the time for the next request with its first bytes, and stop it with the last of its head."""
        super().data_received(data)
        if not self._awaits_request:
            self._stop_timer()
        elif self._timer is None:
            self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the time."""
        self._stop_timer()
        super().connection_lost(exc)

    @property
    def _awaits_request(self) -> bool:
        cycle: Any = self.cycle
        is_http = self.transport.get_protocol() is self  # and not a WebSocket
        return is_http and (cycle is None or cycle.response_complete)

    def _start_timer(self) -> None:
        self._timer = self.loop.call_later(_REQUEST_TIMEOUT_S, self._on_timeout)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_timeout(self) -> None:
        self._timer = None
        if self._awaits_request:
            self.transport.close()
