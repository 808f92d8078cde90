"""The server that is fuzzed: a process of its own, spoken to in bytes."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Self

import grpc
import hpack
from google.rpc import error_details_pb2, status_pb2

from benchmarks.loadgen import http2_frames

if TYPE_CHECKING:
    from collections.abc import Iterable

METHODS = "/earmark.v1.KeywordSpottingService/"
TIMEOUT_S = 60
"""Longer than anything takes on a busy machine: what has not ended by then hangs."""

# What a server may never say of bad input, and what says that it is gone, or that a call hangs.
_FAULTS = ("INTERNAL", "UNKNOWN", "UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED")


class Service:
    """A running `earmark-server`, with its log in a file of `folder`."""

    def __init__(self, folder: Path, *settings: str) -> None:
        self._log = folder / "server.log"
        command = [sys.executable, "-m", "earmark_server", "--port=0", "--log-format=json", *settings]
        own = {key: value for key, value in os.environ.items() if not key.startswith("EARMARK_")}
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(command, stderr=log, env=own, start_new_session=True)
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
            if '"event": "serving"' in text and (found := re.search(r'"port": (\d+)', text)):
                return int(found[1])
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(0.05)
        raise AssertionError(f"the server did not start: {self._log.read_text()}")

    def assert_well(self) -> None:
        """Fail if it died, or answered anybody INTERNAL."""
        assert self.process.poll() is None, f"the server died with {self.process.returncode}: {self._tail()}"
        assert '"event": "internal error"' not in self._log.read_text(), f"an internal error: {self._tail()}"

    def _tail(self) -> str:
        return self._log.read_text(errors="replace")[-3000:]

    @property
    def memory_mb(self) -> float:
        """Memory that it has now."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]

    @property
    def descriptor_count(self) -> int:
        """Files and connections that it has open."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def unary(self, method: str, request: bytes) -> str:
        """Call with one message; gives the reason of the refusal, or OK."""
        try:
            self._channel.unary_unary(METHODS + method)(request, timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            return self._reason(error)
        return "OK"

    def stream(self, requests: Iterable[bytes]) -> tuple[str, list[bytes]]:
        """Stream messages; gives the reason of the refusal, or OK, and the answers."""
        answers = []
        call = self._channel.stream_stream(METHODS + "StreamingSpot")(iter(requests), timeout=TIMEOUT_S)
        try:
            for answer in call:
                answers.append(answer)  # noqa: PERF402 - those before an error count
        except grpc.RpcError as error:
            return self._reason(error), answers
        return "OK", answers

    def _reason(self, error: grpc.RpcError) -> str:
        name, said = error.code().name, f"{error.code().name}: {error.details()}"
        self.assert_well()
        assert name not in _FAULTS, said
        details = dict(error.trailing_metadata()).get("grpc-status-details-bin", b"")
        for detail in status_pb2.Status.FromString(details).details:
            if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
                return error_details_pb2.ErrorInfo.FromString(detail.value).reason
        raise AssertionError(f"no reason is given: {said}")

    def connection(self, data: bytes) -> list[str]:
        """Say something on a connection of its own, and hear it out; gives the gRPC statuses that came."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=TIMEOUT_S) as end:
            heard = b""
            try:
                end.sendall(data)
                end.shutdown(socket.SHUT_WR)
                while piece := end.recv(1 << 16):
                    heard += piece
            except TimeoutError:
                raise AssertionError("the server does not close a connection that was closed") from None
            except OSError:
                self.assert_well()  # It may close before it heard all.
        return list(_statuses(heard))


def _statuses(heard: bytes) -> Iterable[str]:
    decoder, position = hpack.Decoder(), 0
    while len(heard) - position >= http2_frames.FRAME_HEAD.size:
        high, low, kind, flags, _ = http2_frames.FRAME_HEAD.unpack_from(heard, position)
        begin = position + http2_frames.FRAME_HEAD.size
        position = begin + (high << 8 | low)
        if kind == http2_frames.HEADERS:
            headers = dict(decoder.decode(http2_frames.strip_padding(flags, heard[begin:position])))
            if "grpc-status" in headers:
                code = int(headers["grpc-status"])
                name = next(one.name for one in grpc.StatusCode if one.value[0] == code)
                yield f"{name}: {headers.get('grpc-message', '')}"
