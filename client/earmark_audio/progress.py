"""The progress of long work on standard error: its phases by name, and an estimate for all of it.

On a terminal a bar moves. Elsewhere, as in a log file, a line is printed now and then.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeVar

from earmark_audio.terminal import format_duration, is_terminal, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from rich.progress import Progress as RichProgress

T = TypeVar("T")

_FIRST_LINE_S, _LINE_INTERVAL_S = 20.0, 30.0
_LONG_PHASE_S = 5.0
"""Of several phases, those that took this long leave a line."""
_MEASURED_S = 3.0
"""Work that has taken less time than this gives no estimate."""
_PRIOR_S = 20.0
"""The speed counts as measured by this much work already, so that short first phases say little about it."""
_TRUSTED_SHARE = 0.1
"""From this share of a phase on, its estimate depends only on what was measured in it."""


class Estimate:
    """How long all phases still take: from what is expected of each, and from what was measured."""

    def __init__(self) -> None:
        self._phases: list[str] = []
        self._expected_s: dict[str, float] = {}
        self._current: str | None = None
        self._done_expected_s = self._done_measured_s = 0.0

    def plan(self, expected_s: Mapping[str, float]) -> None:
        """Add phases that are ahead, in their order, with the time that each is expected to take.

        How fast this machine is shows in the work that it has done, so the ratios count more than the times.
        """
        self._phases += [phase for phase in expected_s if phase not in self._expected_s]
        self._expected_s = {**expected_s, **self._expected_s}

    def position(self) -> str:
        """Return the number of the current phase, such as [2 of 6], or nothing if there is no other."""
        if self._current not in self._phases or len(self._phases) == 1:
            return ""
        return f"[{self._phases.index(self._current) + 1} of {len(self._phases)}] "

    def start(self, phase: str, done_before: float) -> None:
        """Note that a phase has started, of which a share was done before, 0 to 1."""
        self._current = phase
        self.skip(done_before)

    def skip(self, share: float) -> None:
        """Note that a share of the rest of the current phase was done before, 0 to 1."""
        if self._current in self._expected_s:
            self._expected_s[self._current] *= 1 - share

    def finish(self, measured_s: float) -> None:
        """Note how long the current phase took."""
        assert self._current is not None
        self._done_expected_s += self._expected_s.get(self._current, 0.0)
        self._done_measured_s += measured_s if self._current in self._expected_s else 0.0

    def remaining_s(self, share: float, elapsed_s: float) -> float | None:
        """Return the time that all phases still take, None if it is not known.

        `share`: how much of the current phase is done, 0 to 1; `elapsed_s`: how long it has taken.
        """
        assert self._current is not None
        expected_s = self._expected_s.get(self._current, 0.0)
        measured_s = self._done_measured_s + elapsed_s
        done_expected_s = self._done_expected_s + share * expected_s
        if measured_s < _MEASURED_S or not (done_expected_s or share):
            return None
        speed = (measured_s + _PRIOR_S) / (done_expected_s + _PRIOR_S)
        ahead = self._phases[self._phases.index(self._current) + 1 :] if expected_s else []
        left_s = speed * sum(self._expected_s[phase] for phase in ahead)
        trust = min(1.0, share / _TRUSTED_SHARE) if expected_s else 1.0
        measured_left_s = elapsed_s * (1 - share) / share if share else 0.0
        return left_s + trust * measured_left_s + (1 - trust) * speed * expected_s * (1 - share)


class _Size(NamedTuple):
    total: float | None
    unit: str
    initial: float


class Phase:
    """One phase of the work: a context in which its display is up to date.

    `n` is how much of the total is done. `note` is shown beside it.
    """

    def __init__(self, estimate: Estimate, name: str, size: _Size, *, shown: bool) -> None:
        self.n = self._initial = size.initial
        self.note = ""
        self._shown = shown
        self._estimate, self._name = estimate, name
        self._total, self._unit = size.total, size.unit
        self._start_s = 0.0
        self._display: RichProgress | None = None
        self._over = threading.Event()
        self._reporter: threading.Thread | None = None

    def update(self, amount: float = 1) -> None:
        """Count what was done."""
        self.n += amount

    def skip(self, amount: float) -> None:
        """Count what was done before, such as in an interrupted run: it says nothing about the speed."""
        if self._total and amount:
            self._estimate.skip(min(1.0, amount / max(1e-9, self._total - self._initial)))
        self._initial += amount
        self.n += amount

    def set(self, n: float) -> None:
        """Set how much is done."""
        self.n = n

    def __enter__(self) -> Self:
        self._estimate.start(self._name, min(1.0, self._initial / self._total) if self._total else 0.0)
        self._start_s = time.monotonic()
        if self._shown and is_terminal(sys.stderr):
            self._display = _bar(self)
            self._display.start()
        elif self._shown:
            self._reporter = threading.Thread(target=self._report, name="earmark-progress", daemon=True)
            self._reporter.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.stop()
        elapsed_s = time.monotonic() - self._start_s
        if kind is None:
            self._estimate.finish(elapsed_s)
        is_long = elapsed_s >= (_LONG_PHASE_S if self._estimate.position() else _FIRST_LINE_S)
        if kind is None and self._shown and is_long:
            done = f"{self._count()} in" if self._total else "done in"
            _print(f"{self.title}: {done} {format_duration(elapsed_s)}")

    def stop(self) -> None:
        """Remove the display."""
        self._over.set()
        if self._display is not None:
            self._display.stop()
        if self._reporter is not None:
            self._reporter.join()

    @property
    def title(self) -> str:
        """The number of the phase, and its name."""
        return self._estimate.position() + printable(self._name)

    @property
    def share(self) -> float | None:
        """How much is done, 0 to 1; None if the total is not known."""
        return min(1.0, self.n / self._total) if self._total else None

    def state(self) -> str:
        """Return how much is done, for how long, and how long all phases still take."""
        elapsed_s = time.monotonic() - self._start_s
        parts = [self._count(), self.note, format_duration(elapsed_s)]
        if self._total:
            new = max(0.0, min(1.0, (self.n - self._initial) / max(1e-9, self._total - self._initial)))
            left_s = self._estimate.remaining_s(new, elapsed_s)
            whole = " in all" if self._estimate.position() else ""
            parts.append("estimating" if left_s is None else f"{_roughly(left_s)} left{whole}")
        return ", ".join(part for part in parts if part)

    def _count(self) -> str:
        """Return what is done, such as `40 of 100 files`; of work without a unit, the share."""
        if not self._unit:
            return "" if self.share is None else f"{self.share:.0%}"
        digits = 2 if isinstance(self._total, float) else 0
        done = f"{self.n:,.{digits}f}"
        if self._total and self.n < self._total:
            done += f" of {self._total:,.{digits}f}"
        return f"{done} {self._unit}"

    def _report(self) -> None:
        wait_s = _FIRST_LINE_S
        while not self._over.wait(wait_s):
            _print(f"{self.title}: {self.state()}")
            wait_s = _LINE_INTERVAL_S


class Progress:
    """Shows the phases of a command's work, one after the other, and estimates how long all of them take.

    Call it for each phase: `for file in progress(files, desc="decoding", total=len(files), unit="files")`. As
    a context, it removes a phase's display after an error.
    """

    def __init__(self, *, shown: bool = True) -> None:
        self._shown = shown
        self._estimate = Estimate()
        self._phase: Phase | None = None

    def plan(self, expected_s: Mapping[str, float]) -> None:
        """State the phases that are ahead, each with the time that it is expected to take on two cores.

        Phases that are not stated are shown, and estimated by themselves.
        """
        self._estimate.plan(expected_s)

    def __call__(self, items: Iterable[T], *, desc: str, total: float, unit: str) -> Iterator[T]:
        """Yield the items of a phase, and count them."""
        with self.phase(desc, total=total, unit=unit) as phase:
            for item in items:
                yield item
                phase.update()

    def phase(self, desc: str, *, total: float | None = None, unit: str = "", initial: float = 0) -> Phase:
        """Return a phase whose progress its `update` counts.

        `total`: None if it is not known. `unit`: such as "files"; without one, the share is shown.
        `initial`: how much was done before, such as in an interrupted run.
        """
        self._phase = Phase(self._estimate, desc, _Size(total, unit, initial), shown=self._shown)
        return self._phase

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._phase is not None:
            self._phase.stop()


SILENT = Progress(shown=False)
"""Shows nothing."""


def _roughly(seconds: float) -> str:
    """Return a length of time as precisely as an estimate deserves, such as `about 6 min`."""
    if seconds < 60:
        return f"about {max(5, 5 * round(seconds / 5))} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"about {minutes} min"
    hours, minutes = divmod(5 * round(minutes / 5), 60)
    return f"about {hours} h {minutes} min" if minutes and hours < 10 else f"about {hours} h"


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _bar(phase: Phase) -> RichProgress:
    """Return the display of a phase on a terminal."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, ProgressColumn, SpinnerColumn, Task, TextColumn
    from rich.progress import Progress as RichProgress
    from rich.text import Text

    class State(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(phase.state(), no_wrap=True, overflow="ellipsis")

    class Bar(BarColumn):
        def __call__(self, task: Task) -> Any:
            task.completed = phase.share or 0.0
            return self.render(task)

    display = RichProgress(
        SpinnerColumn("line"),
        TextColumn(escape(phase.title)),
        Bar(bar_width=20),
        State(),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=is_terminal(sys.stdout),  # results that go elsewhere must not come to the terminal
    )
    display.add_task("", total=None if phase.share is None else 1.0)
    return display
