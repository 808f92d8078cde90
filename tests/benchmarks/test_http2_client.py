"""The load generator's HTTP/2 client against the real server, compared with gRPC's own client."""

from __future__ import annotations

import os
import signal
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from earmark.v1 import keyword_spotting_pb2 as messages
from earmark.v1 import keyword_spotting_service_pb2 as rpcs
from google.rpc import error_details_pb2, status_pb2
from support import tiny_model

from benchmarks.loadgen.http2_client import Call, Http2Error
from benchmarks.loadgen.http2_connections import Connections
from benchmarks.loadgen.http2_frames import GrpcStatus, prefixed
from benchmarks.loadgen.server_process import ServerProcess, running_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

DEADLINE_S = 60
METHOD = "/earmark.v1.KeywordSpottingService/StreamingSpot"
WORDS = [(0.5, "low"), (1.4, "mid"), (2.2, "high"), (3.1, "low")]
LINEAR16 = messages.AudioFormat(encoding=messages.ENCODING_LINEAR16, sample_rate_hertz=tiny_model.RATE_HZ)
CONFIG = rpcs.StreamingSpotRequest(config=rpcs.StreamingConfig(audio_format=LINEAR16, request_id="a test"))


@pytest.fixture(scope="module")
def server(tiny_model_path: Path) -> Iterator[ServerProcess]:
    with running_server(tiny_model_path, 200) as process:
        yield process


class RecordingHandler:
    """Records all events of a call."""

    def __init__(self) -> None:
        self.responses: list[bytes] = []
        self.queued = self.queued_and_sent = 0
        self.status: GrpcStatus | None = None

    def on_message(self, message: bytes) -> None:
        assert self.status is None
        self.responses.append(message)

    def on_sent(self) -> None:
        self.queued_and_sent += 1

    def on_end(self, status: GrpcStatus) -> None:
        assert self.status is None
        self.status = status


def _wait(connections: Connections, until: Callable[[], Any]) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while not until():
        assert time.monotonic() < deadline_s, "no progress"
        connections.wait(0.1)


def _open(connections: Connections, index: int = 0) -> tuple[Call, RecordingHandler]:
    handler = RecordingHandler()
    call = connections[index].call(handler)
    handler.queued += not connections[index].send(call, prefixed(CONFIG.SerializeToString()))
    return call, handler


def _audio(chunk_bytes: int, repeats: int = 1) -> list[rpcs.StreamingSpotRequest]:
    pcm = (32767 * tiny_model.recording(WORDS, 4.0)).astype("<i2").tobytes() * repeats
    return [
        rpcs.StreamingSpotRequest(audio=pcm[i : i + chunk_bytes]) for i in range(0, len(pcm), chunk_bytes)
    ]


def _by_grpc(address: str, requests: Sequence[rpcs.StreamingSpotRequest]) -> list[bytes]:
    with grpc.insecure_channel(address) as channel:
        call = channel.stream_stream(METHOD)
        return list(call((r.SerializeToString() for r in (CONFIG, *requests)), timeout=DEADLINE_S))


def _without_times(responses: list[bytes]) -> list[bytes]:
    """Return the responses without `received_offset`, the only field that depends on timing."""
    events = [rpcs.StreamingSpotResponse.FromString(response) for response in responses]
    for event in events:
        if event.HasField("progress"):
            event.progress.ClearField("received_offset")
    return [event.SerializeToString() for event in events]


# From less than a sample to more than a frame, a flow control window, and the server's buffer.
@pytest.mark.parametrize(("chunk_bytes", "repeats"), [(101, 1), (3200, 1), (40_000, 5), (1_000_000, 10)])
def test_responses_equal_those_of_grpcs_own_client(
    server: ServerProcess, chunk_bytes: int, repeats: int
) -> None:
    requests = _audio(chunk_bytes, repeats)
    connections = Connections(server.address, METHOD, 2)
    handlers = []
    for i in range(6):
        call, handler = _open(connections, i)
        handlers.append(handler)
        for request in requests:
            handler.queued += not connections[i].send(call, prefixed(request.SerializeToString()))
        connections[i].end(call)
    _wait(connections, lambda: all(handler.status for handler in handlers))
    connections.close()
    expected = _by_grpc(server.address, requests)
    assert sum(response[0] == 0x12 for response in expected) == 4 * repeats
    for handler in handlers:
        assert handler.status == GrpcStatus(0, "")
        assert _without_times(handler.responses) == _without_times(expected)
        assert handler.queued_and_sent == handler.queued


def test_a_stream_that_sends_far_ahead_does_not_block_the_others(server: ServerProcess) -> None:
    connections = Connections(server.address, METHOD, 1)
    big, big_handler = _open(connections)
    waited = 0
    for request in _audio(3200, repeats=100):
        waited += not connections[0].send(big, prefixed(request.SerializeToString()))
    assert waited > 0
    call, handler = _open(connections)
    for request in _audio(3200):
        connections[0].send(call, prefixed(request.SerializeToString()))
    connections[0].end(call)
    _wait(connections, lambda: handler.status)
    assert big_handler.status is None
    connections[0].end(big)
    _wait(connections, lambda: big_handler.status)
    assert sum(response[0] == 0x12 for response in big_handler.responses) == 4 * 100
    assert big_handler.queued_and_sent == waited
    connections.close()


def test_a_rejected_call_has_a_status_and_a_cancelled_one_frees_its_slot(tiny_model_path: Path) -> None:
    with running_server(tiny_model_path, 1) as server:
        connections = Connections(server.address, METHOD, 1)
        first, first_handler = _open(connections)
        _wait(connections, lambda: first_handler.responses)
        _, rejected = _open(connections)
        _wait(connections, lambda: rejected.status)
        assert rejected.status is not None
        assert rejected.status.code == 8
        assert "1 streams open" in rejected.status.message
        details = status_pb2.Status.FromString(rejected.status.details).details
        assert any(detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR) for detail in details)

        connections[0].cancel(first)
        attempts: list[RecordingHandler] = []

        def is_admitted() -> bool:
            if not attempts or attempts[-1].status:
                attempts.append(_open(connections)[1])
            return bool(attempts[-1].responses)

        _wait(connections, is_admitted)
        assert first_handler.status is None
        connections.close()


def test_calls_end_when_the_server_dies(tiny_model_path: Path) -> None:
    with running_server(tiny_model_path, 10) as server:
        connections = Connections(server.address, METHOD, 1)
        _, handler = _open(connections)
        _wait(connections, lambda: handler.responses)
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        _wait(connections, lambda: handler.status)
        assert handler.status is not None
        assert handler.status.code == 14
        _, rejected = _open(connections)
        assert rejected.status is not None
        assert rejected.status.code == 14
        connections.close()


def test_a_server_without_http2_is_named_in_the_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"

        def close_at_once() -> None:
            listener.accept()[0].close()

        thread = threading.Thread(target=close_at_once)
        thread.start()
        with pytest.raises(Http2Error, match=address):
            Connections(address, METHOD, 1)
        thread.join()
    with pytest.raises(Http2Error, match=f"Cannot connect to {address}"):
        Connections(address, METHOD, 1)


def _frame(kind: int, flags: int, number: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + number.to_bytes(4, "big") + payload


@pytest.mark.slow
@pytest.mark.parametrize("piece", [1, 7, 10_000])
def test_frames_may_be_padded_and_split_anywhere(piece: int) -> None:
    """The real server sends no such frames, but HTTP/2 allows them."""
    plain = [b"\x00\x06status\x03one", b"\x00\x0bgrpc-status\x015"]
    long = b"x" * 150
    response = prefixed(b"one") + prefixed(b"") + prefixed(b"three")
    script = b"".join(
        (
            _frame(6, 0, 0, b"12345678"),
            _frame(1, 0x4 | 0x8 | 0x20, 1, b"\x03" + b"\0\0\0\0\x10" + plain[0] + b"\0\0\0"),
            _frame(99, 0xFF, 1, b"unknown frames are ignored"),
            _frame(0, 0x8, 1, b"\x02" + response[:7] + b"\0\0"),
            _frame(0, 0, 1, response[7:]),
            _frame(1, 0x1, 1, plain[1][:5]),
            _frame(9, 0x4, 1, plain[1][5:]),
        )
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        received = bytearray()

        def serve() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                peer.sendall(_frame(4, 0, 0, struct.pack(">HI", 4, 100)))  # the first window
                while b"the message" not in received:
                    received.extend(peer.recv(1 << 16))
                for i in range(0, len(script), piece):
                    peer.sendall(script[i : i + piece])
                while more := peer.recv(1 << 16):
                    received.extend(more)

        thread = threading.Thread(target=serve)
        thread.start()
        connections = Connections(f"127.0.0.1:{listener.getsockname()[1]}", METHOD, 1)
        handler = RecordingHandler()
        call = connections[0].call(handler)
        # The window is 100 bytes: the rest of the long message waits for a WINDOW_UPDATE that never comes.
        assert connections[0].send(call, prefixed(b"the message"))
        assert not connections[0].send(call, prefixed(long))
        _wait(connections, lambda: handler.status)
        connections.wait(0)
        connections.close()
        thread.join()
    assert handler.responses == [b"one", b"", b"three"]
    assert handler.status == GrpcStatus(5, "")
    assert _frame(0, 0, 1, prefixed(long)[: 100 - len(prefixed(b"the message"))]) in received
    assert _frame(6, 0x1, 0, b"12345678") in received
    assert _frame(4, 0x1, 0, b"") in received
    assert received.endswith(_frame(3, 0, 1, (8).to_bytes(4, "big")))
