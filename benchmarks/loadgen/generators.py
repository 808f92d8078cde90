"""The load generators' processes: they connect, begin together, and hand back what came of it."""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from typing import TYPE_CHECKING, Any

from benchmarks.loadgen import load_client
from benchmarks.loadgen.load import GRACE_S
from benchmarks.loadgen.speech import BenchmarkError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from multiprocessing.connection import Connection

    from benchmarks.loadgen.load import Load, Outcome

_START_TIMEOUT_S = 60
_LEAD_S = 0.2


class Generators:
    """Generator processes that are connected and wait for the signal to begin."""

    def __init__(self, controls: Sequence[Connection]) -> None:
        self._controls = controls

    def begin(self) -> float:
        """Let all of them begin, at one time on the monotonic clock, which is returned."""
        begin_s = time.monotonic() + _LEAD_S
        for control in self._controls:
            control.send(begin_s)
        return begin_s

    def finish(self, timeout_s: float) -> list[Outcome]:
        """Wait until all of them are through, that long at most beyond the grace; give each one's."""
        return [_receive(control, timeout_s + 2 * GRACE_S) for control in self._controls]


@contextlib.contextmanager
def generators(loads: Sequence[Load]) -> Iterator[Generators]:
    """Run a generator process for each load. Raises BenchmarkError if one cannot connect."""
    # Not forked: gRPC may be in use here, and does not survive it.
    context = multiprocessing.get_context("spawn")
    controls, processes = [], []
    try:
        for load in loads:
            control, its_end = context.Pipe()
            process = context.Process(target=load_client.run, args=(load, its_end), daemon=True)
            process.start()
            its_end.close()
            controls.append(control)
            processes.append(process)
        for control in controls:
            _receive(control, _START_TIMEOUT_S)
        yield Generators(controls)
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _receive(control: Connection, timeout_s: float) -> Any:
    try:
        answer = control.recv() if control.poll(timeout_s) else f"no answer for {timeout_s:g} s"
    except EOFError:
        raise BenchmarkError("A load generator has died; what it wrote is above.") from None
    if isinstance(answer, str):
        raise BenchmarkError(f"A load generator gave up: {answer}")
    return answer
