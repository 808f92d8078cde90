"""Just enough HTTP/2 to load a gRPC server cheaply: many calls at once, next to no work for each message.

What it leaves out, it has no use for: TLS, server push, priorities, compressed messages. What it does, it
does by RFC 9113: settings, pings, flow control in both directions, half-closes, resets, GOAWAY. What the
windows or the socket do not take waits here, in order, until they do; nothing is ever dropped.
"""

from __future__ import annotations

import socket
import time
from collections import deque
from typing import Protocol

import hpack

from benchmarks.loadgen import http2_frames as frames
from benchmarks.loadgen.http2_frames import Ending

_RENEW_WINDOW_BYTES = 2**30
_READ_BYTES = 1 << 16
_CONNECT_TIMEOUT_S = 10


class Http2Error(Exception):
    """The server cannot be reached, or does what HTTP/2 does not allow or this file does not know."""


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


class Connection:
    """One connection. Nothing is sent before `flush`, and nothing received but in `receive`."""

    def __init__(self, address: str, method: str) -> None:
        host, _, port = address.rpartition(":")
        self._request = frames.request_headers(address, method)
        self._decoder = hpack.Decoder()
        self._calls: dict[int, Call] = {}
        self._next_id = 1
        self._out: list[bytes | memoryview] = []
        self._rest = memoryview(b"")  # what the socket did not take
        self._waiting: dict[Call, None] = {}  # those with something that has to wait, in order
        self._partial = b""  # of a frame
        self._header_block: tuple[int, int, bytes] | None = None  # until CONTINUATION has ended it
        self._window = self._first_window = frames.DEFAULT_WINDOW
        self._max_frame, self._max_calls = frames.DEFAULT_MAX_FRAME, 1 << 31
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
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._out.append(frames.opening())
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
            receiver.on_end(Ending(frames.UNAVAILABLE, self._going_away or limit))
            return call
        self._next_id += 2
        self._calls[call.id] = call
        self._out.append(frames.frame(frames.HEADERS, frames.END_HEADERS, call.id, self._request))
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
        self._out += (frames.frame_head(size, frames.DATA, 0, call.id), message)
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
        self._out.append(frames.frame(frames.RESET, 0, call.id, frames.CANCEL.to_bytes(4, "big")))

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
        unpack = frames.FRAME_HEAD.unpack_from
        while size - position >= 9:
            high, low, kind, flags, number = unpack(data, position)
            end = position + 9 + (high << 8 | low)
            if end > size:
                break
            if kind == frames.WINDOW:  # the most frequent by far
                self._take_window(number, int.from_bytes(data[position + 9 : end]))
            else:
                self._take_frame(kind, flags, number, data[position + 9 : end])
            position = end
        self._partial = data[position:]

    def _take_frame(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if kind == frames.DATA:
            self._take_data(number, flags, payload)
        elif kind in (frames.HEADERS, frames.CONTINUATION):
            self._take_headers(kind, flags, number, payload)
        elif kind == frames.PING:
            if not flags & frames.ACK:
                self._out.append(frames.frame(frames.PING, frames.ACK, 0, payload))
        elif kind == frames.RESET:
            if call := self._calls.get(number):
                error = int.from_bytes(payload, "big")
                self._finish(call, Ending(frames.INTERNAL, f"the server reset the stream, error {error}"))
        elif kind == frames.SETTINGS:
            if not flags & frames.ACK:
                self._take_settings(payload)
        elif kind == frames.GOAWAY:
            last, error = frames.GOAWAY_HEAD.unpack_from(payload)
            self._going_away = (
                f"the server sent GOAWAY, error {error}: {payload[8:].decode(errors='replace')}"
            )
            for call in [call for call in self._calls.values() if call.id > last & frames.LARGEST_WINDOW]:
                self._finish(call, Ending(frames.UNAVAILABLE, self._going_away))
        elif kind == frames.PUSH:
            raise Http2Error("The server pushes streams although that is switched off.")

    def _take_window(self, number: int, more: int) -> None:
        if not number:
            self._window += more
        elif call := self._calls.get(number):
            call.window += more
        if self._waiting:
            self._send_waiting()

    def _take_settings(self, payload: bytes) -> None:
        for name, value in frames.SETTING.iter_unpack(payload):
            if name == frames.SET_WINDOW:
                for call in self._calls.values():
                    call.window += value - self._first_window
                self._first_window = value
            elif name == frames.SET_MAX_FRAME:
                self._max_frame = value
            elif name == frames.SET_MAX_STREAMS:
                self._max_calls = value
        self._settled = True
        self._out.append(frames.frame(frames.SETTINGS, frames.ACK, 0, b""))
        self._send_waiting()

    def _take_data(self, number: int, flags: int, payload: bytes) -> None:
        self._unacknowledged = self._renew_window(0, self._unacknowledged + len(payload))
        call = self._calls.get(number)
        if call is None:
            return  # It was cancelled.
        call.unacknowledged = self._renew_window(number, call.unacknowledged + len(payload))
        payload = frames.unpadded(flags, payload)
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
        if flags & frames.END_STREAM:
            self._finish(call, Ending(frames.INTERNAL, "the server ended the call without a status"))

    def _renew_window(self, number: int, received: int) -> int:
        """Let the server send more once half of what it may was received; return what is left to count."""
        if received < _RENEW_WINDOW_BYTES:
            return received
        self._out.append(frames.frame(frames.WINDOW, 0, number, received.to_bytes(4, "big")))
        return 0

    def _take_headers(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if kind == frames.HEADERS:
            payload = frames.unpadded(flags, payload)
            if flags & frames.PRIORITY:
                payload = payload[5:]
            self._header_block = (number, flags, payload)
        elif self._header_block:
            number, first_flags, block = self._header_block
            self._header_block = (number, first_flags | flags & frames.END_HEADERS, block + payload)
        if not (self._header_block and self._header_block[1] & frames.END_HEADERS):
            return
        number, flags, block = self._header_block
        self._header_block = None
        # Also for a call that is over: the table that later blocks refer to is made of all of them.
        headers = dict(self._decoder.decode(block, raw=True))
        call = self._calls.get(number)
        if call is not None and flags & frames.END_STREAM:
            self._finish(call, frames.ending_of(headers))

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
            self._finish(call, Ending(frames.UNAVAILABLE, why))
        self._out.clear()
