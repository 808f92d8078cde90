"""RPCs that send all their audio as fast as the server reads it, and check the detections they receive."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING

from earmark.v1 import keyword_spotting_service_pb2 as rpcs

from benchmarks.loadgen.load import GRACE_S, Outcome
from benchmarks.loadgen.load_client import DETECTION, ENDED

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from benchmarks.loadgen.http2_client import Connection
    from benchmarks.loadgen.http2_connections import Connections
    from benchmarks.loadgen.http2_frames import GrpcStatus

_OK = 0
_POLL_S = 0.1


class FullSpeedStream:
    """One StreamingSpot call. `over` is true once it has ended; `add_to` then checks its result."""

    def __init__(
        self, messages: Sequence[bytes], expected_ids: Collection[str], *, cancelled: bool = False
    ) -> None:
        """Prepare a call.

        messages      the messages to send, each with its gRPC prefix
        expected_ids  the ids of the detections that the server must send
        cancelled     reset the call when its first response arrives, instead of half-closing it
        """
        self._messages, self._expected_ids, self._cancelled = messages, expected_ids, cancelled
        self._received_ids: list[str] = []
        self._complete = False
        self._status: GrpcStatus | None = None
        self.over = False

    def start(self, connection: Connection) -> None:
        """Start the call and send all messages. The connection queues those that it cannot send yet."""
        self._connection = connection
        self._call = connection.call(self)
        for message in self._messages:
            connection.send(self._call, message)
        if not self._cancelled:
            connection.end(self._call)

    def on_sent(self) -> None:
        """Do nothing: this load is not timed."""

    def on_message(self, message: bytes) -> None:
        """Record the detections in a response."""
        self._read(message)
        if self._cancelled:
            self._connection.cancel(self._call)
            self.over = True

    def _read(self, message: bytes) -> None:
        if message[0] == DETECTION:
            self._received_ids.append(rpcs.StreamingSpotResponse.FromString(message).detection.detection_id)
        self._complete = message[0] == ENDED

    def on_end(self, status: GrpcStatus) -> None:
        """Record the status."""
        self._status, self.over = status, True

    def add_to(self, total: Outcome) -> None:
        """Compare the received detections with the expected ones, and add the result to `total`."""
        received, expected = set(self._received_ids), set(self._expected_ids)
        total.streams += 1
        total.received += len(received & expected)
        total.problems.update(f"{one} was unexpected" for one in received - expected)
        total.problems.update(
            f"{one} was repeated" for one, count in Counter(self._received_ids).items() if count > 1
        )
        if self._cancelled and self.over and self._status is None:
            return
        total.expected += len(expected)
        total.problems.update(f"{one} was lost" for one in expected - received)
        if self._status is None:
            total.problems[f"a call made no progress for {GRACE_S} s"] += 1
        elif self._status.code != _OK:
            total.problems[f"a call failed: status {self._status.code}: {self._status.message}"] += 1
        elif not self._complete:
            total.problems["a call ended without its last response"] += 1


class FullSpeedSpot(FullSpeedStream):
    """One Spot call: a whole recording in one message."""

    def _read(self, message: bytes) -> None:
        self._received_ids += [one.detection_id for one in rpcs.SpotResponse.FromString(message).detections]
        self._complete = True


def run_calls(connections: Connections, calls: Iterable[FullSpeedStream], concurrency: int) -> Outcome:
    """Run all calls, `concurrency` at a time, and return their outcome."""
    total = Outcome()
    waiting, started = iter(calls), 0
    running: set[FullSpeedStream] = set()
    deadline_s = time.monotonic() + GRACE_S
    while True:
        for call in [call for call in running if call.over]:
            running.discard(call)
            call.add_to(total)
            deadline_s = time.monotonic() + GRACE_S
        while len(running) < concurrency and (following := next(waiting, None)):
            running.add(following)
            following.start(connections[started])
            started += 1
        if not running or time.monotonic() > deadline_s:
            break
        connections.wait(_POLL_S)
    for call in running:
        call.add_to(total)
    return total
