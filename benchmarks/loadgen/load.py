"""A load for one generator process, and its outcome."""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

GRACE_S = 30
"""How long streams may take beyond their length."""

_MAX_PROBLEMS_SHOWN = 8


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """One stream: when it starts, where in the recording, and which detections the server must send."""

    start_s: float
    first_chunk: int
    expected: Mapping[str, int]
    """For the id of every detection: the number of the chunk that decides it."""


@dataclass(frozen=True, slots=True)
class Load:
    """The input of one generator process."""

    address: str
    config_message: bytes
    audio_messages: tuple[tuple[bytes, ...], ...]
    """For each chunk the messages that are sent when it is due, perhaps none."""
    chunk_s: float
    chunk_count: int
    plans: Sequence[StreamPlan]


@dataclass(slots=True)
class Outcome:
    """The outcome of a stream, of a generator process, or of all of them together."""

    streams: int = 0
    """Streams that the server admitted. Detections are expected from these only."""
    stream_s: float = 0.0
    """Seconds of audio sent in these streams."""
    rejected: int = 0
    """Streams that the server rejected."""
    expected: int = 0
    """Detections that were expected."""
    received: int = 0
    """Expected detections that were received."""
    latencies_s: array[float] = field(default_factory=lambda: array("d"))
    """For every detection that a chunk decides: the time from sending that chunk to receiving the event."""
    received_at_s: array[float] = field(default_factory=lambda: array("d"))
    """For the same detections: when the event was received, counted from the start of the load."""
    positions_s: array[float] = field(default_factory=lambda: array("d"))
    """For the same detections: where a microphone that records in real time was in the recording then."""
    send_lags_s: array[float] = field(default_factory=lambda: array("d"))
    """For every chunk: how long after its due time it was sent."""
    cpu_s: float = 0.0
    """CPU time of the generator processes."""
    problems: Counter[str] = field(default_factory=Counter)

    @classmethod
    def sum(cls, outcomes: Iterable[Outcome]) -> Outcome:
        """Return the sum of several outcomes."""
        total = cls()
        for outcome in outcomes:
            total.add(outcome)
        return total

    def problem_summary(self) -> list[str]:
        """Return the most frequent problems, and the number of the others."""
        counted = self.problems.most_common()
        summary = [
            f"{problem} ({count} times)" if count > 1 else problem
            for problem, count in counted[:_MAX_PROBLEMS_SHOWN]
        ]
        if len(counted) > _MAX_PROBLEMS_SHOWN:
            summary.append(f"and {sum(count for _, count in counted[_MAX_PROBLEMS_SHOWN:])} more problems")
        return summary

    def add(self, other: Outcome) -> None:
        """Add another outcome to this one."""
        self.streams += other.streams
        self.stream_s += other.stream_s
        self.rejected += other.rejected
        self.expected += other.expected
        self.received += other.received
        self.latencies_s.extend(other.latencies_s)
        self.received_at_s.extend(other.received_at_s)
        self.positions_s.extend(other.positions_s)
        self.send_lags_s.extend(other.send_lags_s)
        self.cpu_s += other.cpu_s
        self.problems.update(other.problems)
