"""Attacks on a server: clients that send what no legitimate client sends. For servers on this machine only.

They connect from another loopback address than the streams that are measured at the same time, so that
the server counts them as another client.
"""

from __future__ import annotations

import contextlib
import io
import math
import selectors
import socket
import time
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import soundfile
from earmark.v1 import keyword_spotting_service_pb2 as rpcs

from benchmarks.loadgen import http2_frames as frames
from benchmarks.loadgen.http2_client import Http2Error
from benchmarks.loadgen.http2_connections import Connections
from benchmarks.loadgen.load_client import METHOD

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.loadgen.http2_client import Call, Connection
    from benchmarks.loadgen.http2_frames import GrpcStatus

SOURCE_HOST = "127.0.0.2"
HEALTH_CHECK = "/grpc.health.v1.Health/Check"
_HEALTH_WATCH = "/grpc.health.v1.Health/Watch"
_LIST_MODELS = "/earmark.v1.KeywordSpottingService/ListModels"
_REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
_CLASSIFY = "/earmark.v1.KeywordSpottingService/Classify"
_UNKNOWN = "/unknown/Method"
_SPOT = "/earmark.v1.KeywordSpottingService/Spot"
_STREAMS_PER_CONNECTION = 10
_FIRST_SENDS = 8  # messages of one call that are put into the output at a time
_TICK_S = 0.01
_OUTPUT_BYTES = 1 << 16
_LONGEST_FILE_BYTES = (16 << 20) - 1000
_SHORTEST_MP3_FRAME = b"\xff\xf3\x14\xc0" + bytes(20)
_FLAC_BEGINNING = b"fLaC\0\0\0\x22"
_MAX_CONNECT_S = 0.2  # then an attacker tries again, from another port

Attack: TypeAlias = "Callable[[str, str, float], None]"
"""Attacks a server until a time on the monotonic clock. Arguments: the addresses of the server and of its
health port, and that time."""


class _Flood:
    """One call that sends the same messages as fast as flow control allows, or once."""

    def __init__(
        self, connection: Connection, config: Sequence[bytes], body: Sequence[bytes], *, repeats: bool
    ) -> None:
        self._connection, self._config, self._body, self._repeats = connection, config, body, repeats
        self._waiting = self.over = False
        self._call: Call | None = None

    def start(self) -> None:
        self._call = self._connection.call(self)
        for message in (*self._config, *(() if self._repeats else self._body)):
            self._connection.send(self._call, message)

    def send(self) -> None:
        """Send some messages, unless the ones before have not been sent."""
        if not self._repeats or self._waiting or self.over or self._connection.has_output:
            return
        assert self._call is not None
        for _ in range(_FIRST_SENDS):
            for message in self._body:
                if not self._connection.send(self._call, message):
                    self._waiting = True
            if self._waiting:
                return

    def on_sent(self) -> None:
        self._waiting = False

    def on_message(self, message: bytes) -> None:
        pass

    def on_end(self, status: GrpcStatus) -> None:
        self.over = True


def _calls(
    method: str, count: int, config: Sequence[bytes], body: Sequence[bytes], *, repeats: bool, per: int
) -> Attack:
    """Return an attack by calls; a call that has ended is opened again. `per`: calls on a connection."""

    def run(address: str, health_address: str, until_s: float) -> None:
        target = health_address if method == HEALTH_CHECK else address
        connections = Connections(target, method, -(-count // per), SOURCE_HOST)
        floods = [_Flood(connections[i // per], config, body, repeats=repeats) for i in range(count)]
        for flood in floods:
            flood.start()
        while time.monotonic() < until_s:
            for i, flood in enumerate(floods):
                if flood.over:
                    floods[i] = _Flood(connections[i // per], config, body, repeats=repeats)
                    floods[i].start()
                floods[i].send()
            connections.wait(_TICK_S)
        connections.close()

    return run


class _Sender:
    """A connection of an attack by frames."""

    def __init__(self, host: str, port: int, first: bytes) -> None:
        self.socket = socket.socket()
        self.socket.bind((SOURCE_HOST, 0))
        self.socket.setblocking(False)
        self.socket.connect_ex((host, port))
        self._output = bytearray(first)
        self._number = 0
        self._given_up_s = time.monotonic() + _MAX_CONNECT_S

    def exchange(self, events: int, make: Callable[[int], bytes]) -> bool:
        """Read and write what is possible; return whether the connection is open."""
        if events & selectors.EVENT_WRITE:
            self._given_up_s = math.inf
            if len(self._output) < _OUTPUT_BYTES:
                self._output += make(self._number)
                self._number += 1
        try:
            if events & selectors.EVENT_READ and not self.socket.recv(1 << 18):
                return False
            if events & selectors.EVENT_WRITE:
                del self._output[: self.socket.send(self._output)]
        except BlockingIOError:
            pass
        except OSError:
            return False
        return time.monotonic() < self._given_up_s


def _frames(count: int, first: bytes, make: Callable[[int], bytes]) -> Attack:
    """Return an attack by frames; `make` returns some from a number on. A closed connection is replaced."""

    def run(address: str, _: str, until_s: float) -> None:
        host, _, port = address.rpartition(":")
        senders: set[_Sender] = set()
        with selectors.DefaultSelector() as selector:
            while time.monotonic() < until_s:
                for _ in range(count - len(senders)):
                    sender = _Sender(host, int(port), first)
                    senders.add(sender)
                    selector.register(sender.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, sender)
                ready = {key.data: events for key, events in selector.select(_TICK_S)}
                for sender in list(senders):
                    if not sender.exchange(ready.get(sender, 0), make):
                        selector.unregister(sender.socket)
                        sender.socket.close()
                        senders.remove(sender)
            for sender in senders:
                sender.socket.close()

    return run


def _idle_connections(count: int) -> Attack:
    def run(address: str, _: str, until_s: float) -> None:
        host, _, port = address.rpartition(":")
        with contextlib.ExitStack() as stack:
            for _ in range(count):
                with contextlib.suppress(OSError):
                    stack.enter_context(
                        socket.create_connection((host, int(port)), 5, (SOURCE_HOST, 0))
                    ).sendall(frames.PREFACE[:10])
            time.sleep(max(0.0, until_s - time.monotonic()))

    return run


def _none(_: str, __: str, until_s: float) -> None:
    time.sleep(max(0.0, until_s - time.monotonic()))


def _config(**fields: object) -> bytes:
    config = rpcs.StreamingConfig(**fields)  # type: ignore[arg-type]
    config.audio_format.encoding = 1
    config.audio_format.sample_rate_hertz = 16_000
    return frames.prefixed(rpcs.StreamingSpotRequest(config=config).SerializeToString())


def _audio(size: int) -> bytes:
    return frames.prefixed(rpcs.StreamingSpotRequest(audio=bytes(size)).SerializeToString())


def _classify_long_files(address: str, health_address: str, until_s: float) -> None:
    """Have files decoded that are small, but of the longest duration that the server accepts."""
    file = io.BytesIO()
    soundfile.write(file, np.zeros((299 * 48_000, 2), np.int16), 48_000, format="FLAC")
    request = frames.prefixed(rpcs.ClassifyRequest(audio=file.getvalue()).SerializeToString())
    _calls(_CLASSIFY, 64, [request], [], repeats=False, per=4)(address, health_address, until_s)


def _spot_files(count: int, content: bytes) -> Attack:
    """Return an attack by Spot calls with a file of nearly 16 MB that repeats `content`."""

    def run(address: str, health_address: str, until_s: float) -> None:
        file = content * (_LONGEST_FILE_BYTES // len(content))
        request = frames.prefixed(rpcs.SpotRequest(audio=file).SerializeToString())
        _calls(_SPOT, count, [request], [], repeats=False, per=4)(address, health_address, until_s)

    return run


def _begin_of_message(size: int, sent: int) -> bytes:
    """Return the first bytes of a message that never ends."""
    return b"\0" + size.to_bytes(4, "big") + bytes(sent)


_SETTINGS = frames.PREFACE + frames.frame(frames.SETTINGS, 0, 0, b"")
_HEADERS = frames.request_headers("localhost", METHOD)
_RESET = frames.CANCEL.to_bytes(4, "big")
_HOUR = frames.prefixed(rpcs.StreamingSpotRequest(silence={"seconds": 3600}).SerializeToString())
_EMPTY_FIELDS = frames.prefixed(b"\x12\x00" * 32_700 + b"\x12\x82\x02" + bytes(258))


def _opened(stream: int) -> bytes:
    return frames.frame(frames.HEADERS, frames.END_HEADERS, stream, _HEADERS)


def _opened_and_reset(stream: int) -> bytes:
    return _opened(stream) + frames.frame(frames.RESET, 0, stream, _RESET)


_STREAM = _opened(1)
_THIRTY_STREAMS = b"".join(_opened(stream) for stream in range(1, 60, 2))
_NO_SETTINGS = frames.frame(frames.SETTINGS, 0, 0, b"")
_PINGS = frames.frame(frames.PING, 0, 0, bytes(8)) * 2000
_WINDOW_UPDATES = frames.frame(frames.WINDOW, 0, 0, b"\0\0\0\1") * 2000
_DEPENDENCY = frames.frame(frames.PRIORITIES, 0, 1, b"\0\0\0\0\x10")
_REFERENCE = b"\xbe"  # to the header that was last added to the dynamic table
_ADDED_EMPTY_HEADER = b"\x40\x01x\x00"
_ADDED_LONG_HEADER = b"\x40\x01x\x7f\xe9\x06" + bytes(1000)
_LITERAL_HEADER = b"\x10\x05x-abc\x7f\xe9\x06" + bytes(1000)


def _resets(number: int) -> bytes:
    return b"".join(_opened_and_reset(stream) for stream in range(number * 200 + 1, number * 200 + 201, 2))


def _reset_among_updates(number: int) -> bytes:
    return _opened_and_reset(2 * number + 1) + _WINDOW_UPDATES[: len(_WINDOW_UPDATES) // 10]


def _endless_headers(number: int) -> bytes:
    block = _LITERAL_HEADER * 8
    first = frames.frame(frames.HEADERS, 0, 1, _HEADERS) if not number else b""
    return first + frames.frame(frames.CONTINUATION, 0, 1, block) * 4


def _one_byte_headers(header: bytes) -> Callable[[int], bytes]:
    """Return what makes headers without an end of references to `header`, one byte each."""
    block = frames.frame(frames.CONTINUATION, 0, 1, _REFERENCE * 8000)
    return lambda number: (
        block * 4 if number else frames.frame(frames.HEADERS, 0, 1, _HEADERS + header) + block * 4
    )


ATTACKS: dict[str, tuple[str, Attack]] = {
    "none": ("no attack", _none),
    "full-speed": (
        "250 recordings at full speed, in messages of 1 s",
        _calls(METHOD, 250, [_config()], [_audio(32_000)], repeats=True, per=_STREAMS_PER_CONNECTION),
    ),
    "short-messages": (
        "250 recordings at full speed, in messages of 20 ms",
        _calls(METHOD, 250, [_config()], [_audio(640)] * 10, repeats=True, per=_STREAMS_PER_CONNECTION),
    ),
    "bytes": (
        "250 streams of 5,000 messages of one byte, sent at once",
        _calls(METHOD, 250, [_config()], [_audio(1) * 500] * 10, repeats=False, per=_STREAMS_PER_CONNECTION),
    ),
    "empty-fields": (
        "10 streams of messages full of empty fields",
        _calls(METHOD, 10, [_config()], [_EMPTY_FIELDS], repeats=True, per=_STREAMS_PER_CONNECTION),
    ),
    "silence": (
        "10 streams of hours of silence",
        _calls(METHOD, 10, [_config()], [_HOUR] * 10, repeats=True, per=_STREAMS_PER_CONNECTION),
    ),
    "no-config": (
        "1,000 streams without a config",
        _calls(METHOD, 1000, [], [], repeats=False, per=100),
    ),
    "begun-messages": (
        "200 streams that send all but the last bytes of a message of 16 MB",
        _calls(
            METHOD,
            200,
            [_config()],
            [_begin_of_message(16 << 20, (16 << 20) - 100)],
            repeats=False,
            per=_STREAMS_PER_CONNECTION,
        ),
    ),
    "begun-recordings": (
        "64 Spot calls that send all but the last bytes of a recording of 16 MB",
        _calls(_SPOT, 64, [], [_begin_of_message(16 << 20, (16 << 20) - 100)], repeats=False, per=8),
    ),
    "begun-lookups": (
        "200 ListModels calls that send all but the last bytes of a message of 16 MB",
        _calls(_LIST_MODELS, 200, [], [_begin_of_message(16 << 20, (16 << 20) - 100)], repeats=False, per=10),
    ),
    "lookups": (
        "200 ListModels calls at a time",
        _calls(_LIST_MODELS, 200, [frames.prefixed(b"")], [], repeats=False, per=50),
    ),
    "health-port": (
        "200 calls of the health port with a message of 16 MB",
        _calls(HEALTH_CHECK, 200, [], [_begin_of_message(16 << 20, 16_000)], repeats=False, per=10),
    ),
    "unknown-methods": (
        "200 calls of an unknown method at a time",
        _calls(_UNKNOWN, 200, [frames.prefixed(b"")], [], repeats=False, per=50),
    ),
    "reflection": (
        "400 reflection streams of 12,000 empty messages, sent at once",
        _calls(_REFLECTION, 400, [], [frames.prefixed(b"") * 1200] * 10, repeats=False, per=10),
    ),
    "files": (
        "64 Classify calls at a time with FLAC files of 54 KB that decode to 115 MB",
        _classify_long_files,
    ),
    "mp3-files": (
        "32 Spot calls at a time with MP3 files of 700,000 frames",
        _spot_files(32, _SHORTEST_MP3_FRAME),
    ),
    "joined-files": (
        "32 Spot calls at a time with FLAC files of two million beginnings",
        _spot_files(32, _FLAC_BEGINNING),
    ),
    "watches": (
        "1,000 health watches",
        _calls(_HEALTH_WATCH, 1000, [frames.prefixed(b"")], [], repeats=False, per=100),
    ),
    "pings": ("4 connections that send PING frames", _frames(4, _SETTINGS, lambda _: _PINGS)),
    "window-updates": (
        "4 connections that send WINDOW_UPDATE frames",
        _frames(4, _SETTINGS, lambda _: _WINDOW_UPDATES),
    ),
    "pings-after-calls": (
        "4 connections that call once, and then send PING frames",
        _frames(4, _SETTINGS + _opened_and_reset(1), lambda _: _PINGS),
    ),
    "updates-beside-calls": (
        "65 connections with 30 open streams that send WINDOW_UPDATE frames",
        _frames(65, _SETTINGS + _THIRTY_STREAMS, lambda _: _WINDOW_UPDATES),
    ),
    "updates-among-resets": (
        "65 connections that open and reset streams among WINDOW_UPDATE frames",
        _frames(65, _SETTINGS, _reset_among_updates),
    ),
    "resets": (
        "4 connections that open and reset streams",
        _frames(4, _SETTINGS, _resets),
    ),
    "empty-data": (
        "4 connections that send DATA frames without data",
        _frames(4, _SETTINGS + _STREAM, lambda _: frames.frame(frames.DATA, 0, 1, b"") * 2000),
    ),
    "settings": (
        "4 connections that send SETTINGS frames",
        _frames(4, _SETTINGS, lambda _: _NO_SETTINGS * 2000),
    ),
    "many-settings": (
        "500 connections that send SETTINGS frames",
        _frames(500, _SETTINGS, lambda _: _NO_SETTINGS * 2000),
    ),
    "priorities": (
        "4 connections that send PRIORITY frames",
        _frames(4, _SETTINGS, lambda _: _DEPENDENCY * 2000),
    ),
    "endless-headers": (
        "65 connections that send headers without an end",
        _frames(65, _SETTINGS, _endless_headers),
    ),
    "short-headers": (
        "65 connections that send headers of one byte without an end",
        _frames(65, _SETTINGS, _one_byte_headers(_ADDED_EMPTY_HEADER)),
    ),
    "repeated-headers": (
        "65 connections that refer to a header of 1 KB without an end",
        _frames(65, _SETTINGS, _one_byte_headers(_ADDED_LONG_HEADER)),
    ),
    "idle-connections": ("1,000 connections that send nothing", _idle_connections(1000)),
}
"""The attacks by name: a description, and the function that attacks."""


def run(name: str, address: str, health_address: str, seconds: float) -> None:
    """Run an attack, in its own process; an attacker that the server disconnects begins again."""
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        with contextlib.suppress(Http2Error, OSError):
            ATTACKS[name][1](address, health_address, until_s)
        time.sleep(_TICK_S)
