"""A load: what a generator process streams, and what came of it."""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

GRACE_S = 30
"""What streams get after the last of them should have ended."""

_TOLD = 8


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """One stream: when it starts, where in the loop, and what must come of it."""

    start_s: float
    first_chunk: int
    answers: Mapping[str, int]
    """The id of every detection, and the number of the chunk that decides it."""


@dataclass(frozen=True, slots=True)
class Load:
    """All that one generator process has to know."""

    address: str
    config: bytes
    requests: tuple[bytes, ...]
    chunk_s: float
    chunk_count: int
    plans: Sequence[StreamPlan]


@dataclass(slots=True)
class Outcome:
    """What a stream, a generator, or all of them together brought."""

    streams: int = 0
    """Streams that the server took; only of them anything is expected."""
    stream_s: float = 0.0
    """Audio that was sent in those, in seconds."""
    refused: int = 0
    expected: int = 0
    got: int = 0
    delays_s: array[float] = field(default_factory=lambda: array("d"))
    """For every detection that a chunk decided: from the sending of that chunk to the event."""
    heard_s: array[float] = field(default_factory=lambda: array("d"))
    """For every one of them: when it came, counted from the load's beginning."""
    late_s: array[float] = field(default_factory=lambda: array("d"))
    """For every chunk: how long after it was due it was sent."""
    cpu_s: float = 0.0
    problems: Counter[str] = field(default_factory=Counter)

    @classmethod
    def sum(cls, outcomes: Iterable[Outcome]) -> Outcome:
        """Put several together."""
        total = cls()
        for outcome in outcomes:
            total.add(outcome)
        return total

    def told_problems(self) -> list[str]:
        """Say what went wrong, the most frequent first, and not all of it if it is much."""
        counted = self.problems.most_common()
        found = [f"{what} ({count} times)" if count > 1 else what for what, count in counted[:_TOLD]]
        if len(counted) > _TOLD:
            found.append(f"and {sum(count for _, count in counted[_TOLD:])} problems more")
        return found

    def add(self, other: Outcome) -> None:
        """Take another one's into this one."""
        self.streams += other.streams
        self.stream_s += other.stream_s
        self.refused += other.refused
        self.expected += other.expected
        self.got += other.got
        self.delays_s.extend(other.delays_s)
        self.heard_s.extend(other.heard_s)
        self.late_s.extend(other.late_s)
        self.cpu_s += other.cpu_s
        self.problems.update(other.problems)
