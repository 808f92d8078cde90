"""A minimal HTTP/2 client for gRPC calls: many concurrent calls with very little CPU time per message.

It implements settings, pings, flow control in both directions, half-closes, resets and GOAWAY (RFC 9113). It
does not implement TLS, server push, priorities or message compression. Messages that exceed a flow control
window or the socket's buffer are queued, in order; none is dropped.
"""

from __future__ import annotations

import socket
import time
from collections import deque
from typing import Protocol

import hpack

from benchmarks.loadgen import http2_frames as frames
from benchmarks.loadgen.http2_frames import GrpcStatus

_RENEW_WINDOW_BYTES = 2**30
_READ_BYTES = 1 << 16
_CONNECT_TIMEOUT_S = 10


class Http2Error(Exception):
    """The server cannot be reached, or violates HTTP/2, or uses a feature that this client lacks."""


class CallHandler(Protocol):
    """Callbacks for the events of one call."""

    def on_message(self, message: bytes) -> None:
        """Handle a response message, without its gRPC prefix."""

    def on_sent(self) -> None:
        """Handle the end of a wait: a message that `send` had queued has been sent completely."""

    def on_end(self, status: GrpcStatus) -> None:
        """Handle the end of the call. No callback follows."""


class Call:
    """One call, made by `Connection.call`."""

    __slots__ = ("half_closed", "handler", "id", "partial", "queue", "unacknowledged", "window")

    def __init__(self, stream_id: int, window: int, handler: CallHandler) -> None:
        self.id = stream_id
        self.window = window  # bytes that may still be sent
        self.handler = handler
        self.queue: deque[bytes | memoryview | None] = deque()  # None: the half-close
        self.half_closed = False  # or reset
        self.partial = b""  # an incomplete response message
        self.unacknowledged = 0  # bytes received


class Connection:
    """One connection. Only `flush` writes to the socket, and only `receive` reads from it."""

    def __init__(self, address: str, method: str, source_host: str = "") -> None:
        """Connect; `source_host`: the address of this machine to connect from, or any."""
        host, _, port = address.rpartition(":")
        self._request = frames.request_headers(address, method)
        self._decoder = hpack.Decoder()
        self._calls: dict[int, Call] = {}
        self._next_id = 1
        self._out: list[bytes | memoryview] = []
        self._unsent = memoryview(b"")  # bytes that the socket did not accept
        self._queued_calls: dict[Call, None] = {}  # calls with a queue, as an ordered set
        self._partial = b""  # an incomplete frame
        self._header_block: tuple[int, int, bytes] | None = None  # incomplete: CONTINUATION follows
        self._window = self._initial_window = frames.DEFAULT_WINDOW
        self._max_frame, self._max_calls = frames.DEFAULT_MAX_FRAME, 1 << 31
        self._unacknowledged = 0
        self._going_away = ""
        self._settled = False
        self.closed = False
        try:
            self._socket = socket.create_connection(
                (host.strip("[]"), int(port)), _CONNECT_TIMEOUT_S, (source_host, 0) if source_host else None
            )
        except (OSError, ValueError) as error:
            raise Http2Error(f"Cannot connect to {address}: {error}") from error
        self._settle(address)

    def _settle(self, address: str) -> None:
        """Exchange settings, which state the server's limits."""
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._out.append(frames.connection_preface())
        self.flush()
        deadline_s = time.monotonic() + _CONNECT_TIMEOUT_S
        while not (self._settled or self.closed) and time.monotonic() < deadline_s:
            self.receive()
        if not self._settled:
            self.close()
            raise Http2Error(f"{address} does not speak HTTP/2 without TLS.")
        self._socket.setblocking(False)

    def fileno(self) -> int:
        """Return the socket's file descriptor, for a selector."""
        return self._socket.fileno()

    @property
    def blocked(self) -> bool:
        """Whether the socket's buffer is full."""
        return bool(self._unsent)

    @property
    def has_output(self) -> bool:
        """Whether there is new output for `flush`, and the socket's buffer is not full."""
        return bool(self._out) and not self._unsent

    def close(self) -> None:
        """Close the connection. The handlers of open calls are not notified."""
        self.closed = True
        self._socket.close()

    # Sending.

    def call(self, handler: CallHandler) -> Call:
        """Start a call. If it cannot be started, its handler is notified of the end at once."""
        call = Call(self._next_id, self._initial_window, handler)
        if self.closed or self._going_away or len(self._calls) >= self._max_calls:
            limit = f"the server allows {self._max_calls} calls on one connection"
            call.half_closed = True
            handler.on_end(GrpcStatus(frames.UNAVAILABLE, self._going_away or limit))
            return call
        self._next_id += 2
        self._calls[call.id] = call
        self._out.append(frames.frame(frames.HEADERS, frames.END_HEADERS, call.id, self._request))
        return call

    def send(self, call: Call, message: bytes) -> bool:
        """Send a message, which has its gRPC prefix.

        Returns False if the message is queued; the handler's `on_sent` is called when it has been sent.
        """
        size = len(message)
        if call.half_closed:
            return True  # The call is over, and its handler has been notified.
        if call.queue or self._unsent or size > call.window or size > self._window or size > self._max_frame:
            return self._queue(call, message)
        call.window -= size
        self._window -= size
        self._out += (frames.frame_head(size, frames.DATA, 0, call.id), message)
        return True

    def end(self, call: Call) -> None:
        """Half-close a call, after all its messages."""
        if not call.half_closed:
            self._queue(call, None)

    def cancel(self, call: Call) -> None:
        """Reset a call: drop its queue, and call its handler no more."""
        if self._calls.pop(call.id, None) is not None:
            self._reset(call)

    def _reset(self, call: Call) -> None:
        self._queued_calls.pop(call, None)
        call.queue.clear()
        call.half_closed = True
        self._out.append(frames.frame(frames.RESET, 0, call.id, frames.CANCEL.to_bytes(4, "big")))

    def _queue(self, call: Call, message: bytes | None) -> bool:
        """Send a message or the half-close (None) after the call's queue; return False if it was queued."""
        call.queue.append(message)
        if call not in self._queued_calls:
            while call.queue and not self._unsent and self._send_frame(call):
                pass
            if call.queue:
                self._queued_calls[call] = None
        return not call.queue

    def _send_queued(self) -> None:
        """Send queued messages as far as the windows allow, one frame of each call in turn."""
        stuck = 0
        while self._queued_calls and stuck < len(self._queued_calls) and not self._unsent:
            call = next(iter(self._queued_calls))
            del self._queued_calls[call]
            count, first = len(call.queue), call.queue[0]
            stuck = 0 if self._send_frame(call) else stuck + 1
            if call.queue:
                self._queued_calls[call] = None
            if len(call.queue) < count and first is not None:
                call.handler.on_sent()

    def _send_frame(self, call: Call) -> bool:
        message = call.queue[0]
        if message is None:
            call.queue.popleft()
            call.half_closed = True
            self._out.append(frames.frame(frames.DATA, frames.END_STREAM, call.id, b""))
            return True
        size = min(len(message), call.window, self._window, self._max_frame)
        if size <= 0:
            return False
        call.window -= size
        self._window -= size
        view = memoryview(message)
        self._out += (frames.frame_head(size, frames.DATA, 0, call.id), view[:size])
        if size < len(message):
            call.queue[0] = view[size:]
        else:
            call.queue.popleft()
        return True

    def flush(self) -> None:
        """Write the output to the socket; `blocked` is then whether some of it is left."""
        data = self._unsent
        if not data:
            data = memoryview(b"".join(self._out))
            self._out.clear()
        try:
            self._unsent = data[self._socket.send(data) :]
        except BlockingIOError:
            self._unsent = data
        except OSError as error:
            self._fail(f"the connection failed: {error}")
            return
        if not self._unsent:
            self._send_queued()

    # Receiving.

    def receive(self) -> None:
        """Read from the socket, and notify the handlers of the calls."""
        try:
            data = self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(f"the connection failed: {error}")
            return
        if not data:
            self._fail("the server closed the connection")
            return
        data = self._partial + data
        position, size = 0, len(data)
        unpack = frames.FRAME_HEAD.unpack_from
        while size - position >= 9:
            high, low, kind, flags, stream_id = unpack(data, position)
            end = position + 9 + (high << 8 | low)
            if end > size:
                break
            if kind == frames.WINDOW:  # the most frequent by far
                self._handle_window_update(stream_id, int.from_bytes(data[position + 9 : end]))
            else:
                self._handle_frame(kind, flags, stream_id, data[position + 9 : end])
            position = end
        self._partial = data[position:]

    def _handle_frame(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if kind == frames.DATA:
            self._handle_data(stream_id, flags, payload)
        elif kind in (frames.HEADERS, frames.CONTINUATION):
            self._handle_headers(kind, flags, stream_id, payload)
        elif kind == frames.PING:
            if not flags & frames.ACK:
                self._out.append(frames.frame(frames.PING, frames.ACK, 0, payload))
        elif kind == frames.RESET:
            if call := self._calls.get(stream_id):
                error = int.from_bytes(payload, "big")
                self._finish(call, GrpcStatus(frames.INTERNAL, f"the server reset the stream, error {error}"))
        elif kind == frames.SETTINGS:
            if not flags & frames.ACK:
                self._handle_settings(payload)
        elif kind == frames.GOAWAY:
            last, error = frames.GOAWAY_HEAD.unpack_from(payload)
            self._going_away = (
                f"the server sent GOAWAY, error {error}: {payload[8:].decode(errors='replace')}"
            )
            for call in [call for call in self._calls.values() if call.id > last & frames.LARGEST_WINDOW]:
                self._finish(call, GrpcStatus(frames.UNAVAILABLE, self._going_away))
        elif kind == frames.PUSH:
            raise Http2Error("The server pushes streams, although the settings disable that.")

    def _handle_window_update(self, stream_id: int, increment: int) -> None:
        if not stream_id:
            self._window += increment
        elif call := self._calls.get(stream_id):
            call.window += increment
        if self._queued_calls:
            self._send_queued()

    def _handle_settings(self, payload: bytes) -> None:
        for name, value in frames.SETTING.iter_unpack(payload):
            if name == frames.SET_WINDOW:
                for call in self._calls.values():
                    call.window += value - self._initial_window
                self._initial_window = value
            elif name == frames.SET_MAX_FRAME:
                self._max_frame = value
            elif name == frames.SET_MAX_STREAMS:
                self._max_calls = value
        self._settled = True
        self._out.append(frames.frame(frames.SETTINGS, frames.ACK, 0, b""))
        self._send_queued()

    def _handle_data(self, stream_id: int, flags: int, payload: bytes) -> None:
        self._unacknowledged = self._renew_window(0, self._unacknowledged + len(payload))
        call = self._calls.get(stream_id)
        if call is None:
            return  # The call was cancelled.
        call.unacknowledged = self._renew_window(stream_id, call.unacknowledged + len(payload))
        payload = frames.strip_padding(flags, payload)
        if call.partial:
            payload = call.partial + payload
        position, size = 0, len(payload)
        while size - position >= 5:
            end = position + 5 + int.from_bytes(payload[position + 1 : position + 5], "big")
            if end > size:
                break
            if payload[position]:
                raise Http2Error(
                    "The server compresses its responses, although the request does not allow that."
                )
            call.handler.on_message(payload[position + 5 : end])
            position = end
        call.partial = payload[position:]
        if flags & frames.END_STREAM:
            self._finish(call, GrpcStatus(frames.INTERNAL, "the server ended the call without a status"))

    def _renew_window(self, stream_id: int, received: int) -> int:
        """Renew a window once half of it is used; return the bytes that are not acknowledged yet."""
        if received < _RENEW_WINDOW_BYTES:
            return received
        self._out.append(frames.frame(frames.WINDOW, 0, stream_id, received.to_bytes(4, "big")))
        return 0

    def _handle_headers(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if kind == frames.HEADERS:
            payload = frames.strip_padding(flags, payload)
            if flags & frames.PRIORITY:
                payload = payload[5:]
            self._header_block = (stream_id, flags, payload)
        elif self._header_block:
            stream_id, first_flags, block = self._header_block
            self._header_block = (stream_id, first_flags | flags & frames.END_HEADERS, block + payload)
        if not (self._header_block and self._header_block[1] & frames.END_HEADERS):
            return
        stream_id, flags, block = self._header_block
        self._header_block = None
        # Decode the headers of finished calls too: later header blocks refer to the same dynamic table.
        headers = dict(self._decoder.decode(block, raw=True))
        call = self._calls.get(stream_id)
        if call is not None and flags & frames.END_STREAM:
            self._finish(call, frames.parse_trailers(headers))

    def _finish(self, call: Call, status: GrpcStatus) -> None:
        del self._calls[call.id]
        if not call.half_closed:
            # The server ended the call early. The reset frees what it still stores for the call.
            self._reset(call)
        call.handler.on_end(status)

    def _fail(self, reason: str) -> None:
        self.closed = True
        self._going_away = reason
        self._unsent = memoryview(b"")
        for call in list(self._calls.values()):
            self._finish(call, GrpcStatus(frames.UNAVAILABLE, reason))
        self._out.clear()
