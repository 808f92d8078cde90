"""Calls that send all they have as fast as it is taken, and are checked for what comes back."""

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
    from benchmarks.loadgen.http2_frames import Ending

_OK = 0
_LOOK_S = 0.1


class FastCall:
    """One call. It is over once `over` is true, and `problems` says what was wrong with it."""

    def __init__(
        self, messages: Sequence[bytes], answers: Collection[str], *, cancelled: bool = False
    ) -> None:
        """`messages` have their prefix; `answers` are the ids of the detections that must come.

        One that is to be cancelled sends its messages and is reset when its first answer is there.
        """
        self._messages, self._answers, self._cancelled = messages, answers, cancelled
        self._heard: list[str] = []
        self._complete = False
        self._ending: Ending | None = None
        self.over = False

    def start(self, connection: Connection) -> None:
        """Send all of it; what cannot be sent yet waits there."""
        self._connection = connection
        self._call = connection.call(self)
        for message in self._messages:
            connection.send(self._call, message)
        if not self._cancelled:
            connection.end(self._call)

    def on_sent(self) -> None:
        """Go on: nothing is timed here."""

    def on_message(self, message: bytes) -> None:
        """Note the detections."""
        self._take(message)
        if self._cancelled:
            self._connection.cancel(self._call)
            self.over = True

    def _take(self, message: bytes) -> None:
        if message[0] == DETECTION:
            self._heard.append(rpcs.StreamingSpotResponse.FromString(message).detection.detection_id)
        self._complete = message[0] == ENDED

    def on_end(self, ending: Ending) -> None:
        """Be done."""
        self._ending, self.over = ending, True

    def judge(self, total: Outcome) -> None:
        """Compare what came with what had to come, and add it to an outcome."""
        heard, answers = set(self._heard), set(self._answers)
        total.streams += 1
        total.got += len(heard & answers)
        total.problems.update(f"{one} came although it should not" for one in heard - answers)
        total.problems.update(f"{one} came twice" for one, count in Counter(self._heard).items() if count > 1)
        if self._cancelled and self.over and self._ending is None:
            return
        total.expected += len(answers)
        total.problems.update(f"{one} was lost" for one in answers - heard)
        if self._ending is None:
            total.problems[f"nothing happened any more for {GRACE_S} s"] += 1
        elif self._ending.code != _OK:
            total.problems[f"a call broke: status {self._ending.code}: {self._ending.message}"] += 1
        elif not self._complete:
            total.problems["a call ended without its last answer"] += 1


class SpotCall(FastCall):
    """A whole recording in one message."""

    def _take(self, message: bytes) -> None:
        self._heard += [one.detection_id for one in rpcs.SpotResponse.FromString(message).detections]
        self._complete = True


def run_calls(connections: Connections, calls: Iterable[FastCall], at_once: int) -> Outcome:
    """Run calls, so many at once, to their ends; return what came of them."""
    total = Outcome()
    waiting, started = iter(calls), 0
    running: set[FastCall] = set()
    give_up_s = time.monotonic() + GRACE_S
    while True:
        for call in [call for call in running if call.over]:
            running.discard(call)
            call.judge(total)
            give_up_s = time.monotonic() + GRACE_S
        while len(running) < at_once and (following := next(waiting, None)):
            running.add(following)
            following.start(connections[started])
            started += 1
        if not running or time.monotonic() > give_up_s:
            break
        connections.wait(_LOOK_S)
    for call in running:
        call.judge(total)
    return total
