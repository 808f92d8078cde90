"""A server that accepts no calls any more ends, so that what started it starts it again."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from support.deadlines import DEADLINE_S
from support.server_process import ServerProcess

from benchmarks.loadgen import http2_frames

if TYPE_CHECKING:
    from pathlib import Path


def test_a_server_that_accepts_no_calls_ends(tiny_model_path: Path) -> None:
    """From grpcio 1.84 on, grpc.aio stops accepting calls after one whose path is not UTF-8."""
    headers = http2_frames.request_headers("localhost", b"/a/\xff")
    end = http2_frames.END_HEADERS | http2_frames.END_STREAM
    call = http2_frames.connection_preface() + http2_frames.frame(http2_frames.HEADERS, end, 1, headers)
    with ServerProcess(f"--model={tiny_model_path}", "--port=0", "--log-format=json") as server:
        port = server.wait_until_serving()
        with socket.create_connection(("127.0.0.1", port), DEADLINE_S) as connection:
            connection.sendall(call)
            assert server.process.wait(DEADLINE_S) == 70
        reasons = [line["because"] for line in server.lines() if line["event"] == "exiting"]
        assert reasons == ["gRPC has stopped accepting calls"]
