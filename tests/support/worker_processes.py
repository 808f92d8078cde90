"""Several workers on one port as processes, and connections whose worker is known."""

from __future__ import annotations

import contextlib
import itertools
import queue
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
from earmark.v1 import keyword_spotting_service_pb2 as rpcs
from earmark.v1 import keyword_spotting_service_pb2_grpc as stubs

from support.deadlines import DEADLINE_S
from support.server_process import ServerProcess
from support.server_rig import chunks, config, detections, duration, kinds, pcm

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from earmark.v1 import keyword_spotting_pb2 as messages

PCM = pcm()

# The probability that one of two working workers receives none of this many connections is 2 ** -200.
MANY = 200


@dataclass
class Connection:
    """A connection, and its worker."""

    channel: grpc.Channel
    stub: Any
    worker: int


class Live:
    """A stream whose audio is sent piece by piece."""

    def __init__(self, connection: Connection, **fields: Any) -> None:
        self.worker = connection.worker
        self.events: list[rpcs.StreamingSpotResponse] = []
        self._requests: queue.SimpleQueue[rpcs.StreamingSpotRequest | None] = queue.SimpleQueue()
        self._requests.put(config(progress_interval=duration(0.5), **fields))
        self.call = connection.stub.StreamingSpot(iter(self._requests.get, None), timeout=DEADLINE_S)

    def send(self, data: bytes) -> None:
        for request in chunks(data):
            self._requests.put(request)

    def until(self, wanted: Callable[[rpcs.StreamingSpotResponse], bool]) -> None:
        for event in self.call:
            self.events.append(event)
            if wanted(event):
                return
        raise AssertionError(f"it ended before: {kinds(self.events)}")

    def progress(self) -> messages.Progress:
        return next(event.progress for event in reversed(self.events) if event.HasField("progress"))

    def end(self, data: bytes = b"") -> list[messages.KeywordDetection]:
        """Send the rest of the audio, and return all detections. Raises RpcError if the stream breaks."""
        self.send(data)
        self._requests.put(None)
        self.events += self.call
        assert kinds(self.events)[-1] == "ended"
        return detections(self.events)


class Workers(ServerProcess):
    """`earmark-server --workers 2` on a free port."""

    def __init__(self, model: Path, *arguments: str, count: int = 2) -> None:
        super().__init__(
            f"--workers={count}", "--port=0", f"--model={model}", "--log-format=json", *arguments
        )
        self._channels = contextlib.ExitStack()
        self._ids = itertools.count()
        self.pids = [self.wait_for("worker started")["worker"] for _ in range(count)]

    def __exit__(self, *details: object) -> None:
        self._channels.close()
        super().__exit__(*details)

    def serve(self) -> int:
        line = self.wait_for("serving")
        assert (line["workers"], line["host"]) == (2, "127.0.0.1")
        self.port: int = line["port"]
        return self.port

    def connect(self) -> Connection:
        """Open a connection, and find its worker by the log line of a call."""
        # A separate connection: gRPC shares one among equal channels of a process.
        options = (("grpc.use_local_subchannel_pool", 1),)
        channel = self._channels.enter_context(
            grpc.insecure_channel(f"127.0.0.1:{self.port}", options=options)
        )
        stub = stubs.KeywordSpottingServiceStub(channel)
        name = f"connection {next(self._ids)}"
        requests = iter([config(request_id=name), *chunks(PCM)])
        assert len(detections(stub.StreamingSpot(requests, timeout=DEADLINE_S))) == 4
        return Connection(channel, stub, self.wait_for("call ended", request_id=name)["worker"])

    def connect_to(self, *wanted: int) -> list[Connection]:
        """Open connections until each of these workers has one, and return them in that order."""
        found: dict[int, Connection] = {}
        for _ in range(MANY):
            connection = self.connect()
            found.setdefault(connection.worker, connection)
            if found.keys() >= set(wanted):
                return [found[pid] for pid in wanted]
        raise AssertionError(f"{MANY} connections reached {found.keys()}, wanted {wanted}")
