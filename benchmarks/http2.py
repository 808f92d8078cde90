"""Just enough HTTP/2 to load a gRPC server cheaply: many calls at once, next to no work for each message.

What it leaves out, it has no use for: TLS, server push, priorities, compressed messages. What it does, it
does by RFC 9113: settings, pings, flow control in both directions, half-closes, resets, GOAWAY. What the
windows or the socket do not take waits here, in order, until they do; nothing is ever dropped.
"""

from __future__ import annotations

import base64
import selectors
import socket
import struct
import time
from collections import deque
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import unquote

import hpack

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _PUSH, _PING, _GOAWAY, _WINDOW, _CONTINUATION = 0, 1, 3, 4, 5, 6, 7, 8, 9
_ACK = _END_STREAM = 0x1
_END_HEADERS, _PADDED, _PRIORITY = 0x4, 0x8, 0x20
_SET_PUSH, _SET_MAX_STREAMS, _SET_WINDOW, _SET_MAX_FRAME = 2, 3, 4, 5
_CANCEL = 8

_FRAME_HEAD = struct.Struct(">HBBBI")  # length (24 bits), type, flags, stream
_SETTING = struct.Struct(">HI")
_DEFAULT_WINDOW = 65_535
_LARGEST_WINDOW = 2**31 - 1
_RENEW_WINDOW_BYTES = 2**30
_READ_BYTES = 1 << 16
_CONNECT_TIMEOUT_S = 10
_UNAVAILABLE, _INTERNAL = 14, 13


class Http2Error(Exception):
    """The server cannot be reached, or does what HTTP/2 does not allow or this file does not know."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a call ended: the gRPC status code and message, and the serialized google.rpc.Status, if any."""

    code: int
    message: str
    details: bytes = b""


class Receiver(Protocol):
    """Whoever wants to know what becomes of a call."""

    def on_message(self, message: bytes) -> None:
        """Take an answer, without its prefix."""

    def on_sent(self) -> None:
        """Learn that a message that had to wait is on its way, all of it."""

    def on_end(self, ending: Ending) -> None:
        """Learn how the call ended; nothing comes after it."""


class Call:
    """One call; made by `Connection.call`."""

    __slots__ = ("ending_sent", "id", "partial", "receiver", "unacknowledged", "waiting", "window")

    def __init__(self, number: int, window: int, receiver: Receiver) -> None:
        self.id = number
        self.window = window  # what the server still takes of it, in bytes
        self.receiver = receiver
        self.waiting: deque[bytes | memoryview | None] = deque()  # None: the half-close
        self.ending_sent = False
        self.partial = b""  # of an answer
        self.unacknowledged = 0  # bytes received


def prefixed(message: bytes) -> bytes:
    """Put gRPC's prefix, uncompressed and the length, before a message."""
    return b"\0" + len(message).to_bytes(4, "big") + message


class Connections:
    """Connections to one server, waited for together."""

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


class Connection:
    """One connection. Nothing is sent before `flush`, and nothing received but in `receive`."""

    def __init__(self, address: str, method: str) -> None:
        host, _, port = address.rpartition(":")
        # Without an index in any table, the same bytes do for every call.
        headers = {
            ":method": "POST",
            ":scheme": "http",
            ":path": method,
            ":authority": address,
            "te": "trailers",
            "content-type": "application/grpc",
            "user-agent": "earmark-benchmarks",
        }
        self._request = hpack.Encoder().encode([(name, value, True) for name, value in headers.items()])
        self._decoder = hpack.Decoder()
        self._calls: dict[int, Call] = {}
        self._next_id = 1
        self._out: list[bytes | memoryview] = []
        self._rest = memoryview(b"")  # what the socket did not take
        self._waiting: dict[Call, None] = {}  # those with something that has to wait, in order
        self._partial = b""  # of a frame
        self._header_block: tuple[int, int, bytes] | None = None  # until CONTINUATION has ended it
        self._window = self._first_window = _DEFAULT_WINDOW
        self._max_frame, self._max_calls = 16_384, 1 << 31
        self._unacknowledged = 0
        self._going_away = ""
        self._settled = False
        self.closed = False
        try:
            self._socket = socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_TIMEOUT_S)
        except (OSError, ValueError) as error:
            raise Http2Error(f"Cannot connect to {address}: {error}") from error
        self._settle(address)

    def _settle(self, address: str) -> None:
        """Exchange settings; what the server allows is known from then on."""
        settings = _SETTING.pack(_SET_PUSH, 0) + _SETTING.pack(_SET_WINDOW, _LARGEST_WINDOW)
        more = (_LARGEST_WINDOW - _DEFAULT_WINDOW).to_bytes(4, "big")
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._out += (_PREFACE, _frame(_SETTINGS, 0, 0, settings), _frame(_WINDOW, 0, 0, more))
        self.flush()
        until_s = time.monotonic() + _CONNECT_TIMEOUT_S
        while not (self._settled or self.closed) and time.monotonic() < until_s:
            self.receive()
        if not self._settled:
            self.close()
            raise Http2Error(f"{address} does not speak HTTP/2 without TLS.")
        self._socket.setblocking(False)

    def fileno(self) -> int:
        """Give the socket's number, for a selector."""
        return self._socket.fileno()

    @property
    def blocked(self) -> bool:
        """Whether the socket takes no more."""
        return bool(self._rest)

    @property
    def has_output(self) -> bool:
        """Whether `flush` has something to do that it could not do a moment ago."""
        return bool(self._out) and not self._rest

    def close(self) -> None:
        """Close it; calls that are open are not told."""
        self.closed = True
        self._socket.close()

    # Sending.

    def call(self, receiver: Receiver) -> Call:
        """Begin a call; one that cannot be begun ends at once."""
        call = Call(self._next_id, self._first_window, receiver)
        if self.closed or self._going_away or len(self._calls) >= self._max_calls:
            limit = f"the server allows {self._max_calls} calls on one connection"
            call.ending_sent = True
            receiver.on_end(Ending(_UNAVAILABLE, self._going_away or limit))
            return call
        self._next_id += 2
        self._calls[call.id] = call
        self._out.append(_frame(_HEADERS, _END_HEADERS, call.id, self._request))
        return call

    def send(self, call: Call, message: bytes) -> bool:
        """Send a message with its prefix; False if it has to wait: its receiver hears of it then."""
        size = len(message)
        if call.ending_sent:
            return True  # The call is over, and has said so.
        if call.waiting or self._rest or size > call.window or size > self._window or size > self._max_frame:
            return self._queue(call, message)
        call.window -= size
        self._window -= size
        self._out += (_FRAME_HEAD.pack(size >> 8, size & 255, _DATA, 0, call.id), message)
        return True

    def end(self, call: Call) -> None:
        """Half-close a call, after all that was sent."""
        if not call.ending_sent:
            self._queue(call, None)

    def cancel(self, call: Call) -> None:
        """Reset a call: what waits is not sent, and nothing more is heard of it."""
        if self._calls.pop(call.id, None) is not None:
            self._reset(call)

    def _reset(self, call: Call) -> None:
        self._waiting.pop(call, None)
        call.waiting.clear()
        call.ending_sent = True
        self._out.append(_frame(_RESET, 0, call.id, _CANCEL.to_bytes(4, "big")))

    def _queue(self, call: Call, message: bytes | None) -> bool:
        """Send something behind what waits; False if it has to wait, too."""
        call.waiting.append(message)
        if call not in self._waiting:
            while call.waiting and not self._rest and self._send_frame(call):
                pass
            if call.waiting:
                self._waiting[call] = None
        return not call.waiting

    def _send_waiting(self) -> None:
        """Send what waits, as far as the windows allow, a frame of each call in turn."""
        stuck = 0
        while self._waiting and stuck < len(self._waiting) and not self._rest:
            call = next(iter(self._waiting))
            del self._waiting[call]
            count, first = len(call.waiting), call.waiting[0]
            stuck = 0 if self._send_frame(call) else stuck + 1
            if call.waiting:
                self._waiting[call] = None
            if len(call.waiting) < count and first is not None:
                call.receiver.on_sent()

    def _send_frame(self, call: Call) -> bool:
        message = call.waiting[0]
        if message is None:
            call.waiting.popleft()
            call.ending_sent = True
            self._out.append(_frame(_DATA, _END_STREAM, call.id, b""))
            return True
        size = min(len(message), call.window, self._window, self._max_frame)
        if size <= 0:
            return False
        call.window -= size
        self._window -= size
        view = memoryview(message)
        self._out += (_FRAME_HEAD.pack(size >> 8, size & 255, _DATA, 0, call.id), view[:size])
        if size < len(message):
            call.waiting[0] = view[size:]
        else:
            call.waiting.popleft()
        return True

    def flush(self) -> None:
        """Give the socket what there is; `blocked` tells whether it took all."""
        data = self._rest
        if not data:
            data = memoryview(b"".join(self._out))
            self._out.clear()
        try:
            self._rest = data[self._socket.send(data) :]
        except BlockingIOError:
            self._rest = data
        except OSError as error:
            self._lose(f"the connection broke: {error}")
            return
        if not self._rest:
            self._send_waiting()

    # Receiving.

    def receive(self) -> None:
        """Take what has come, and tell the receivers."""
        try:
            data = self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(f"the connection broke: {error}")
            return
        if not data:
            self._lose("the server closed the connection")
            return
        data = self._partial + data
        position, size = 0, len(data)
        unpack = _FRAME_HEAD.unpack_from
        while size - position >= 9:
            high, low, kind, flags, number = unpack(data, position)
            end = position + 9 + (high << 8 | low)
            if end > size:
                break
            if kind == _WINDOW:  # the most frequent by far
                self._take_window(number, int.from_bytes(data[position + 9 : end]))
            else:
                self._take_frame(kind, flags, number, data[position + 9 : end])
            position = end
        self._partial = data[position:]

    def _take_frame(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if kind == _DATA:
            self._take_data(number, flags, payload)
        elif kind in (_HEADERS, _CONTINUATION):
            self._take_headers(kind, flags, number, payload)
        elif kind == _PING:
            if not flags & _ACK:
                self._out.append(_frame(_PING, _ACK, 0, payload))
        elif kind == _RESET:
            if call := self._calls.get(number):
                error = int.from_bytes(payload, "big")
                self._finish(call, Ending(_INTERNAL, f"the server reset the stream, error {error}"))
        elif kind == _SETTINGS:
            if not flags & _ACK:
                self._take_settings(payload)
        elif kind == _GOAWAY:
            last, error = struct.unpack_from(">II", payload)
            self._going_away = (
                f"the server sent GOAWAY, error {error}: {payload[8:].decode(errors='replace')}"
            )
            for call in [call for call in self._calls.values() if call.id > last & _LARGEST_WINDOW]:
                self._finish(call, Ending(_UNAVAILABLE, self._going_away))
        elif kind == _PUSH:
            raise Http2Error("The server pushes streams although that is switched off.")

    def _take_window(self, number: int, more: int) -> None:
        if not number:
            self._window += more
        elif call := self._calls.get(number):
            call.window += more
        if self._waiting:
            self._send_waiting()

    def _take_settings(self, payload: bytes) -> None:
        for name, value in _SETTING.iter_unpack(payload):
            if name == _SET_WINDOW:
                for call in self._calls.values():
                    call.window += value - self._first_window
                self._first_window = value
            elif name == _SET_MAX_FRAME:
                self._max_frame = value
            elif name == _SET_MAX_STREAMS:
                self._max_calls = value
        self._settled = True
        self._out.append(_frame(_SETTINGS, _ACK, 0, b""))
        self._send_waiting()

    def _take_data(self, number: int, flags: int, payload: bytes) -> None:
        self._unacknowledged = self._renew_window(0, self._unacknowledged + len(payload))
        call = self._calls.get(number)
        if call is None:
            return  # It was cancelled.
        call.unacknowledged = self._renew_window(number, call.unacknowledged + len(payload))
        if flags & _PADDED:
            payload = payload[1 : len(payload) - payload[0]]
        if call.partial:
            payload = call.partial + payload
        position, size = 0, len(payload)
        while size - position >= 5:
            end = position + 5 + int.from_bytes(payload[position + 1 : position + 5], "big")
            if end > size:
                break
            if payload[position]:
                raise Http2Error("The server compresses its answers although nobody asked for it.")
            call.receiver.on_message(payload[position + 5 : end])
            position = end
        call.partial = payload[position:]
        if flags & _END_STREAM:
            self._finish(call, Ending(_INTERNAL, "the server ended the call without a status"))

    def _renew_window(self, number: int, received: int) -> int:
        """Let the server send more once half of what it may was received; return what is left to count."""
        if received < _RENEW_WINDOW_BYTES:
            return received
        self._out.append(_frame(_WINDOW, 0, number, received.to_bytes(4, "big")))
        return 0

    def _take_headers(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if kind == _HEADERS:
            if flags & _PADDED:
                payload = payload[1 : len(payload) - payload[0]]
            if flags & _PRIORITY:
                payload = payload[5:]
            self._header_block = (number, flags, payload)
        elif self._header_block:
            number, first_flags, block = self._header_block
            self._header_block = (number, first_flags | flags & _END_HEADERS, block + payload)
        if not (self._header_block and self._header_block[1] & _END_HEADERS):
            return
        number, flags, block = self._header_block
        self._header_block = None
        # Also for a call that is over: the table that later blocks refer to is made of all of them.
        headers = dict(self._decoder.decode(block, raw=True))
        call = self._calls.get(number)
        if call is not None and flags & _END_STREAM:
            self._finish(call, _ending(headers))

    def _finish(self, call: Call, ending: Ending) -> None:
        del self._calls[call.id]
        if not call.ending_sent:
            # The server wants no more; this frees what it still holds of the call.
            self._reset(call)
        call.receiver.on_end(ending)

    def _lose(self, why: str) -> None:
        self.closed = True
        self._going_away = why
        self._rest = memoryview(b"")
        for call in list(self._calls.values()):
            self._finish(call, Ending(_UNAVAILABLE, why))
        self._out.clear()


def _frame(kind: int, flags: int, number: int, payload: bytes) -> bytes:
    size = len(payload)
    return _FRAME_HEAD.pack(size >> 8, size & 255, kind, flags, number) + payload


def _ending(trailers: dict[bytes, bytes]) -> Ending:
    # A -bin value is base64 without its padding, by gRPC's protocol.
    details = trailers.get(b"grpc-status-details-bin", b"")
    if b"grpc-status" not in trailers:
        return Ending(_INTERNAL, f"HTTP status {trailers.get(b':status', b'?').decode()} without gRPC's own")
    return Ending(
        int(trailers[b"grpc-status"]),
        unquote(trailers.get(b"grpc-message", b"").decode()),
        base64.b64decode(details + b"=" * (-len(details) % 4)),
    )
