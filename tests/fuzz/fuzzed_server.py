"""The server under fuzzing: its process, and raw calls to it."""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Self

import grpc
import hpack
from google.rpc import error_details_pb2, status_pb2
from support.environment import clean_environment

from benchmarks.loadgen import http2_frames

if TYPE_CHECKING:
    from collections.abc import Iterable

METHODS = "/earmark.v1.KeywordSpottingService/"
TIMEOUT_S = 60
"""Longer than any call takes on a busy machine: a call that has not ended by then hangs."""

# Statuses that a server must not return for malformed input, and statuses of a dead server or a hanging call.
_FAULTS = ("INTERNAL", "UNKNOWN", "UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED")


class FuzzedServer:
    """A running `earmark-server`, with its log in `folder`."""

    def __init__(self, folder: Path, *settings: str) -> None:
        self._log = folder / "server.log"
        command = [sys.executable, "-m", "earmark_server", "--port=0", "--log-format=json", *settings]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                command, stderr=log, env=clean_environment(), start_new_session=True
            )
        try:
            self.port = self._wait_until_serving()
        except BaseException:
            self.process.kill()
            raise
        self.address = f"127.0.0.1:{self.port}"
        options = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1))
        self._channel = grpc.insecure_channel(self.address, options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()
        self.process.kill()
        self.process.wait()

    def _wait_until_serving(self) -> int:
        while self.process.poll() is None:
            text = self._log.read_text()
            if '"event": "serving"' in text and (match := re.search(r'"port": (\d+)', text)):
                return int(match[1])
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(0.05)
        raise AssertionError(f"the server did not start: {self._log.read_text()}")

    def assert_healthy(self) -> None:
        """Fail if the process died, or if its log has an internal error."""
        assert self.process.poll() is None, f"the server died with {self.process.returncode}: {self._tail()}"
        assert '"event": "internal error"' not in self._log.read_text(), f"an internal error: {self._tail()}"

    def _tail(self) -> str:
        return self._log.read_text(errors="replace")[-3000:]

    @property
    def memory_mb(self) -> float:
        """The resident memory of the process."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]

    @property
    def descriptor_count(self) -> int:
        """The number of open files and connections of the process."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def call_unary(self, method: str, request: bytes) -> str:
        """Call a unary RPC with one message; return the error's reason, or OK."""
        try:
            self._channel.unary_unary(METHODS + method)(request, timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            return self._reason(error)
        return "OK"

    def call_streaming(self, requests: Iterable[bytes]) -> tuple[str, list[bytes]]:
        """Call StreamingSpot; return the error's reason, or OK, and the responses."""
        responses = []
        call = self._channel.stream_stream(METHODS + "StreamingSpot")(iter(requests), timeout=TIMEOUT_S)
        try:
            for response in call:
                responses.append(response)  # noqa: PERF402 - keeps those before an error
        except grpc.RpcError as error:
            return self._reason(error), responses
        return "OK", responses

    def _reason(self, error: grpc.RpcError) -> str:
        name, text = error.code().name, f"{error.code().name}: {error.details()}"
        self.assert_healthy()
        assert name not in _FAULTS, text
        details = dict(error.trailing_metadata()).get("grpc-status-details-bin", b"")
        for detail in status_pb2.Status.FromString(details).details:
            if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
                return error_details_pb2.ErrorInfo.FromString(detail.value).reason
        raise AssertionError(f"the error has no reason: {text}")

    def send_raw(self, data: bytes) -> list[str]:
        """Send bytes on a new connection and half-close it; return the gRPC statuses in the response."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=TIMEOUT_S) as connection:
            received = b""
            try:
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
                while piece := connection.recv(1 << 16):
                    received += piece
            except TimeoutError:
                raise AssertionError("the server does not close a half-closed connection") from None
            except OSError:
                self.assert_healthy()  # The server may close the connection before it has read all bytes.
        return list(_statuses(received))


def _statuses(received: bytes) -> Iterable[str]:
    decoder, position = hpack.Decoder(), 0
    while len(received) - position >= http2_frames.FRAME_HEAD.size:
        high, low, kind, flags, _ = http2_frames.FRAME_HEAD.unpack_from(received, position)
        begin = position + http2_frames.FRAME_HEAD.size
        position = begin + (high << 8 | low)
        if kind == http2_frames.HEADERS:
            headers = dict(decoder.decode(http2_frames.strip_padding(flags, received[begin:position])))
            if "grpc-status" in headers:
                code = int(headers["grpc-status"])
                name = next(one.name for one in grpc.StatusCode if one.value[0] == code)
                yield f"{name}: {headers.get('grpc-message', '')}"
