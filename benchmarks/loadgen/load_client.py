"""What runs in a load generator's process: streams in real time, and when what comes back came.

Chunk k of a stream is due when its last sample would have been spoken: start + (k + 1) * chunk,
whatever became of the chunks before it (no coordinated omission). What is due is sent in one go each time
the process wakes up; in between it sleeps. Messages are made beforehand, and of the answers only detections
are looked into.
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
    from benchmarks.loadgen.http2_frames import Ending
    from benchmarks.loadgen.load import Load, StreamPlan

STREAMS_PER_CONNECTION = 25
"""So few that the connections of many streams are spread about evenly over a server's workers."""

METHOD = "/earmark.v1.KeywordSpottingService/StreamingSpot"

# The first byte of an answer names its one field.
DETECTION = rpcs.StreamingSpotResponse.DETECTION_FIELD_NUMBER << 3 | 2
ENDED = rpcs.StreamingSpotResponse.ENDED_FIELD_NUMBER << 3 | 2
# To wake up costs more than to send: with many streams, what is due in this time is sent in one go.
_REST_S, _MANY_STREAMS = 0.002, 100
_OK, _RESOURCE_EXHAUSTED = 0, 8


def run(load: Load, control: Pipe) -> None:
    """Connect, wait for the signal, stream, and hand back what came of it, or a sentence on why not."""
    # An interrupt is for the process above, which then ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        count = math.ceil(len(load.plans) / STREAMS_PER_CONNECTION)
        connections = Connections(load.address, METHOD, count)
        messages = _Messages(load)
        # There are no cycles here to be found, and looking for them takes the time of many chunks.
        gc.disable()
        control.send(None)
        begin_s: float = control.recv()
        cpu_s = time.process_time()
        streams = [_Stream(messages, connections[i], plan, begin_s) for i, plan in enumerate(load.plans)]
        _play(streams, connections)
        total = Outcome(cpu_s=time.process_time() - cpu_s)
        connections.close()
    except Http2Error as error:
        control.send(str(error))
        return
    for stream in streams:
        stream.judge(total)
    control.send(total)


def _play(streams: list[_Stream], connections: Connections) -> None:
    """Run the streams to their ends, or until the grace is over."""
    give_up_s = max(stream.ends_s for stream in streams) + GRACE_S
    # Both are in order of time by themselves: what was sent now is due again a chunk's length from now.
    starting = deque(sorted(streams, key=lambda stream: stream.due_s))
    sending: deque[_Stream] = deque()
    running = set(streams)
    rest_s = _REST_S if len(streams) > _MANY_STREAMS else 0.0
    while running and (now_s := time.monotonic()) < give_up_s:
        while starting and starting[0].due_s <= now_s:
            stream = starting.popleft()
            stream.start(running)
            sending.append(stream)
        while sending and sending[0].due_s <= now_s:
            stream = sending.popleft()
            if stream.send_chunk(now_s):
                sending.append(stream)
        next_s = min((queue[0].due_s for queue in (starting, sending) if queue), default=give_up_s)
        connections.wait(max(0.0, next_s - time.monotonic()))
        if rest_s:
            time.sleep(rest_s)


class _Messages:
    """What all streams of a load send, with gRPC's prefix."""

    def __init__(self, load: Load) -> None:
        self.config = prefixed(load.config)
        self.chunks = [prefixed(request) for request in load.requests]
        self.chunk_s, self.chunk_count = load.chunk_s, load.chunk_count


class _Stream:
    """One stream in play: what it sends next, and what it has got."""

    __slots__ = (
        "_answered", "_begin_s", "_call", "_connection", "_ended", "_ending", "_late_s", "_messages",
        "_plan", "_received", "_running", "_sent_s", "_waiting_due_s", "due_s", "ends_s", "start_s",
    )  # fmt: skip

    def __init__(self, messages: _Messages, connection: Connection, plan: StreamPlan, begin_s: float) -> None:
        self._messages, self._connection, self._plan = messages, connection, plan
        self._begin_s = begin_s
        self.start_s = self.due_s = begin_s + plan.start_s
        self.ends_s = self.start_s + messages.chunk_count * messages.chunk_s
        self._sent_s = array("d")
        self._late_s = array("d")
        self._waiting_due_s: deque[float] = deque()
        self._answered = self._ended = False
        self._received: list[tuple[str, float]] = []
        self._ending: Ending | None = None

    def start(self, running: set[_Stream]) -> None:
        """Open the stream; when it has ended it leaves `running`."""
        self._running = running
        self._call = self._connection.call(self)
        if not self._connection.send(self._call, self._messages.config):
            self._waiting_due_s.append(self.due_s)
        self.due_s = self.start_s + self._messages.chunk_s

    def send_chunk(self, now_s: float) -> bool:
        """Send the chunk that is due; False if it was the last, or nobody listens any more."""
        if self._ending is not None:
            return False
        messages, sent_s = self._messages, self._sent_s
        chunks = messages.chunks
        if self._connection.send(self._call, chunks[(self._plan.first_chunk + len(sent_s)) % len(chunks)]):
            self._late_s.append(now_s - self.due_s)
        else:
            self._waiting_due_s.append(self.due_s)
        sent_s.append(now_s)
        count = len(sent_s)
        if count == messages.chunk_count:
            self._connection.end(self._call)
            return False
        self.due_s = self.start_s + (count + 1) * messages.chunk_s
        return True

    def on_sent(self) -> None:
        """Note how late that is."""
        self._late_s.append(time.monotonic() - self._waiting_due_s.popleft())

    def on_message(self, message: bytes) -> None:
        """Note a detection, and when it came."""
        self._answered = True
        if message[0] == DETECTION:
            now_s = time.monotonic()
            event = rpcs.StreamingSpotResponse.FromString(message)
            self._received.append((event.detection.detection_id, now_s))
        self._ended = message[0] == ENDED

    def on_end(self, ending: Ending) -> None:
        """Be done."""
        self._ending = ending
        self._running.discard(self)

    def judge(self, total: Outcome) -> None:
        """Compare what came with what had to come, and add it to an outcome."""
        total.late_s.extend(self._late_s)
        ending = self._ending
        if ending is not None and ending.code == _RESOURCE_EXHAUSTED and not self._answered:
            total.refused += 1
            if not _has_retry_info(ending.details):
                total.problems["a stream was refused without RetryInfo"] += 1
            return
        total.streams += 1
        total.stream_s += len(self._sent_s) * self._messages.chunk_s
        total.expected += len(self._plan.answers)
        if ending is None:
            total.problems[f"a stream had not ended {GRACE_S} s after its time"] += 1
        elif ending.code != _OK:
            total.problems[f"a stream broke: status {ending.code}: {ending.message}"] += 1
        elif not self._ended:
            total.problems["a stream ended without its `ended`"] += 1
        missing = dict(self._plan.answers)
        for detection_id, received_s in self._received:
            decided_by = missing.pop(detection_id, None)
            if decided_by is None:
                again = detection_id in self._plan.answers
                total.problems[f"{detection_id} came {'twice' if again else 'although it should not'}"] += 1
                continue
            total.got += 1
            # What only the end of the stream decides is the last word's tail, not a delay.
            if decided_by < len(self._sent_s):
                total.delays_s.append(received_s - self._sent_s[decided_by])
                total.heard_s.append(received_s - self._begin_s)
        for detection_id in missing:
            total.problems[f"{detection_id} was lost"] += 1


def _has_retry_info(details: bytes) -> bool:
    status = status_pb2.Status.FromString(details)
    return any(detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR) for detail in status.details)
