"""Notices: what is unusual about a recording, but does not keep it from being read."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Notice:
    """One notice, for programs and for people."""

    reason: str
    """A stable name in UPPER_SNAKE_CASE."""
    message: str
    """A sentence."""

    def __str__(self) -> str:
        return self.message


OTHER_BYTES = Notice("TRAILING_BYTES", "Other bytes follow the end of the recording; they were not read.")
"""Some bytes follow the end; it is unknown how many."""

PACKET_INCOMPLETE = Notice(
    "PACKET_INCOMPLETE", "A packet is incomplete: the recording may be truncated or damaged."
)

MORE_AUDIO = Notice(
    "LENGTH_EXCEEDED", "The recording is longer than its header states; it was read to its end."
)


_LEAST_GAP_S = 0.25
"""Shorter gaps are as imprecise timestamps are."""


def append_new(notices: list[Notice], notice: Notice) -> None:
    """Append a notice, unless it is there already."""
    if notice not in notices:
        notices.append(notice)


def trailing_bytes(count: int) -> Notice:
    """Return the notice for bytes that follow the end of the recording."""
    return Notice("TRAILING_BYTES", f"{count} bytes follow the end of the recording; they were not read.")


def other_tracks(count: int) -> Notice:
    """Return the notice for a recording with several audio tracks."""
    return Notice("OTHER_TRACKS", f"The recording has {count} audio tracks; only the first one was read.")


def damaged_bytes(count: int, what: str) -> Notice:
    """Return the notice for bytes between the pages or frames of a stream."""
    return Notice("DAMAGED_BYTES", f"{count} bytes between the {what} are damaged; they were skipped.")


def report_gaps(gaps_s: float, notices: list[Notice]) -> None:
    """Append a notice if the timestamps of a recording say that some of its time has no audio."""
    if gaps_s > _LEAST_GAP_S:
        notices.append(
            Notice(
                "GAPS",
                f"The audio begins late or has gaps, {gaps_s:.2f} s in all: offsets count the audio alone.",
            )
        )
