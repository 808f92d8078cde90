"""The load client, which runs in a generator process: real-time streams, and the latency of their events.

Chunk k of a stream is due when its last sample would have been spoken: start + (k + 1) * chunk length,
whatever happened to the chunks before it. A slow server therefore cannot slow the load down (no coordinated
omission). Each time the process wakes up, it sends all chunks that are due, and then sleeps again. Request
messages are serialized in advance; of the responses, only detections are parsed.
"""

from __future__ import annotations

import gc
import math
import signal
import time
from array import array
from collections import deque
from typing import TYPE_CHECKING

from earmark.v1 import keyword_spotting_service_pb2 as rpcs
from google.rpc import error_details_pb2, status_pb2

from benchmarks.loadgen.http2_client import Http2Error
from benchmarks.loadgen.http2_connections import Connections
from benchmarks.loadgen.http2_frames import prefixed
from benchmarks.loadgen.load import GRACE_S, Outcome

if TYPE_CHECKING:
    from multiprocessing.connection import Connection as Pipe

    from benchmarks.loadgen.http2_client import Connection
    from benchmarks.loadgen.http2_frames import GrpcStatus
    from benchmarks.loadgen.load import Load, StreamPlan

STREAMS_PER_CONNECTION = 25
"""Low enough that the connections of many streams are spread about evenly over a server's workers."""

METHOD = "/earmark.v1.KeywordSpottingService/StreamingSpot"

# The first byte of a response identifies the field that is set.
DETECTION = rpcs.StreamingSpotResponse.DETECTION_FIELD_NUMBER << 3 | 2
ENDED = rpcs.StreamingSpotResponse.ENDED_FIELD_NUMBER << 3 | 2
# Waking up costs more than sending. With many streams, the process therefore sleeps this long each time.
_BATCH_S, _MANY_STREAMS = 0.002, 100
_OK, _RESOURCE_EXHAUSTED = 0, 8


def run(load: Load, pipe: Pipe) -> None:
    """Connect, wait for the start time, run the load, and send its outcome or an error text to `pipe`."""
    # Ctrl-C is handled by the parent process, which then ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        count = math.ceil(len(load.plans) / STREAMS_PER_CONNECTION)
        connections = Connections(load.address, METHOD, count)
        messages = _Messages(load)
        # There is no cyclic garbage here, and a collection takes longer than sending many chunks.
        gc.disable()
        pipe.send(None)
        begin_s: float = pipe.recv()
        cpu_s = time.process_time()
        streams = [_Stream(messages, connections[i], plan, begin_s) for i, plan in enumerate(load.plans)]
        _run_streams(streams, connections)
        total = Outcome(cpu_s=time.process_time() - cpu_s)
        connections.close()
    except Http2Error as error:
        pipe.send(str(error))
        return
    for stream in streams:
        stream.add_to(total)
    pipe.send(total)


def _run_streams(streams: list[_Stream], connections: Connections) -> None:
    """Run the streams to their ends, or until the grace period is over."""
    deadline_s = max(stream.ends_s for stream in streams) + GRACE_S
    # Both queues stay ordered by due time: a stream's next chunk is due one chunk length after this one.
    starting = deque(sorted(streams, key=lambda stream: stream.due_s))
    sending: deque[_Stream] = deque()
    running = set(streams)
    sleep_s = _BATCH_S if len(streams) > _MANY_STREAMS else 0.0
    while running and (now_s := time.monotonic()) < deadline_s:
        while starting and starting[0].due_s <= now_s:
            stream = starting.popleft()
            stream.start(running)
            sending.append(stream)
        while sending and sending[0].due_s <= now_s:
            stream = sending.popleft()
            if stream.send_chunk(now_s):
                sending.append(stream)
        next_s = min((queue[0].due_s for queue in (starting, sending) if queue), default=deadline_s)
        connections.wait(max(0.0, next_s - time.monotonic()))
        if sleep_s:
            time.sleep(sleep_s)


class _Messages:
    """The messages of all streams of a load, with gRPC's prefix."""

    def __init__(self, load: Load) -> None:
        self.config = prefixed(load.config_message)
        self.chunks = [b"".join(map(prefixed, messages)) for messages in load.audio_messages]
        self.chunk_s, self.chunk_count = load.chunk_s, load.chunk_count


class _Stream:
    """One stream: its plan, what it has sent, and what it has received."""

    __slots__ = (
        "_admitted", "_begin_s", "_call", "_complete", "_connection", "_messages", "_plan", "_queued_due_s",
        "_received", "_running", "_send_lags_s", "_sent_s", "_status", "due_s", "ends_s", "start_s",
    )  # fmt: skip

    def __init__(self, messages: _Messages, connection: Connection, plan: StreamPlan, begin_s: float) -> None:
        self._messages, self._connection, self._plan = messages, connection, plan
        self._begin_s = begin_s
        self.start_s = self.due_s = begin_s + plan.start_s
        self.ends_s = self.start_s + messages.chunk_count * messages.chunk_s
        self._sent_s = array("d")
        self._send_lags_s = array("d")
        self._queued_due_s: deque[float] = deque()  # the due times of messages that the connection queued
        self._admitted = self._complete = False
        self._received: list[tuple[str, float]] = []
        self._status: GrpcStatus | None = None

    def start(self, running: set[_Stream]) -> None:
        """Open the stream. It removes itself from `running` when it ends."""
        self._running = running
        self._call = self._connection.call(self)
        if not self._connection.send(self._call, self._messages.config):
            self._queued_due_s.append(self.due_s)
        self.due_s = self.start_s + self._messages.chunk_s

    def send_chunk(self, now_s: float) -> bool:
        """Send the chunk that is due. Returns False if it was the last one, or if the stream has ended."""
        if self._status is not None:
            return False
        messages, sent_s = self._messages, self._sent_s
        chunks = messages.chunks
        chunk = chunks[(self._plan.first_chunk + len(sent_s)) % len(chunks)]
        if not chunk or self._connection.send(self._call, chunk):
            self._send_lags_s.append(now_s - self.due_s)
        else:
            self._queued_due_s.append(self.due_s)
        sent_s.append(now_s)
        count = len(sent_s)
        if count == messages.chunk_count:
            self._connection.end(self._call)
            return False
        self.due_s = self.start_s + (count + 1) * messages.chunk_s
        return True

    def on_sent(self) -> None:
        """Record the send lag of a queued message."""
        self._send_lags_s.append(time.monotonic() - self._queued_due_s.popleft())

    def on_message(self, message: bytes) -> None:
        """Record a detection, and when it was received."""
        self._admitted = True
        if message[0] == DETECTION:
            now_s = time.monotonic()
            event = rpcs.StreamingSpotResponse.FromString(message)
            self._received.append((event.detection.detection_id, now_s))
        self._complete = message[0] == ENDED

    def on_end(self, status: GrpcStatus) -> None:
        """Record the status."""
        self._status = status
        self._running.discard(self)

    def add_to(self, total: Outcome) -> None:
        """Compare the received detections with the expected ones, and add the result to `total`."""
        total.send_lags_s.extend(self._send_lags_s)
        status = self._status
        if status is not None and status.code == _RESOURCE_EXHAUSTED and not self._admitted:
            total.rejected += 1
            if not _has_retry_info(status.details):
                total.problems["a stream was rejected without RetryInfo"] += 1
            return
        total.streams += 1
        total.stream_s += len(self._sent_s) * self._messages.chunk_s
        total.expected += len(self._plan.expected)
        if status is None:
            total.problems[f"a stream had not ended {GRACE_S} s after its audio"] += 1
        elif status.code != _OK:
            total.problems[f"a stream failed: status {status.code}: {status.message}"] += 1
        elif not self._complete:
            total.problems["a stream ended without `ended`"] += 1
        missing = dict(self._plan.expected)
        for detection_id, received_s in self._received:
            decided_by = missing.pop(detection_id, None)
            if decided_by is None:
                repeated = detection_id in self._plan.expected
                total.problems[f"{detection_id} was {'repeated' if repeated else 'unexpected'}"] += 1
                continue
            total.received += 1
            # A detection that is decided by the end of the stream has no latency: no chunk decided it.
            if decided_by < len(self._sent_s):
                total.latencies_s.append(received_s - self._sent_s[decided_by])
                total.received_at_s.append(received_s - self._begin_s)
                first_s = self._plan.first_chunk * self._messages.chunk_s
                total.positions_s.append(first_s + received_s - self.start_s)
        for detection_id in missing:
            total.problems[f"{detection_id} was lost"] += 1


def _has_retry_info(details: bytes) -> bool:
    status = status_pb2.Status.FromString(details)
    return any(detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR) for detail in status.details)
