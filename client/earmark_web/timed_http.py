"""HTTP connections that must send their request, and read its response, in time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    import asyncio

_REQUEST_TIMEOUT_S = 5.0
_READ_TIMEOUT_S = 30.0  # in which the client has to read some of a response that waits


class TimedHttp(H11Protocol):
    """Closes a connection on which no complete request head arrives in time, or whose client does not read.

    uvicorn would wait for ever, and each connection counts against its limit.
    """

    _timer: asyncio.TimerHandle | None = None
    _read_timer: asyncio.TimerHandle | None = None

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
        """Stop the times."""
        self._stop_timer()
        self._stop_read_timer()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Start the time in which the client has to read."""
        super().pause_writing()
        self._start_read_timer()

    def resume_writing(self) -> None:
        """Stop the time: the client has read."""
        self._stop_read_timer()
        super().resume_writing()

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

    def _start_read_timer(self) -> None:
        unread = self.transport.get_write_buffer_size()
        self._read_timer = self.loop.call_later(_READ_TIMEOUT_S, self._on_read_timeout, unread)

    def _on_read_timeout(self, unread: int) -> None:
        if self.transport.get_write_buffer_size() < unread:  # the client has read some of it
            self._start_read_timer()
        else:
            self.transport.abort()

    def _stop_read_timer(self) -> None:
        if self._read_timer is not None:
            self._read_timer.cancel()
            self._read_timer = None

    def _on_timeout(self) -> None:
        self._timer = None
        if self._awaits_request:
            self.transport.close()
