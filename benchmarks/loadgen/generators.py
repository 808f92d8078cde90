"""The load generator processes: they connect, start at the same time, and return their outcomes."""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from typing import TYPE_CHECKING

from benchmarks.loadgen import load_client
from benchmarks.loadgen.errors import BenchmarkError
from benchmarks.loadgen.load import GRACE_S, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from multiprocessing.connection import Connection

    from benchmarks.loadgen.load import Load

_CONNECT_TIMEOUT_S = 60
_START_DELAY_S = 0.2


class GeneratorProcesses:
    """Load generator processes that are connected and wait for the start signal."""

    def __init__(self, pipes: Sequence[Connection]) -> None:
        self._pipes = pipes

    def start(self) -> float:
        """Start the load in all processes at one time; return that time, on the monotonic clock."""
        begin_s = time.monotonic() + _START_DELAY_S
        for pipe in self._pipes:
            pipe.send(begin_s)
        return begin_s

    def wait(self, timeout_s: float) -> list[Outcome]:
        """Wait for the end of the load; return the outcome of each process.

        Raises BenchmarkError if a process takes longer than `timeout_s` plus a grace period.
        """
        outcomes = []
        for pipe in self._pipes:
            outcome = _receive(pipe, timeout_s + 2 * GRACE_S)
            assert outcome is not None
            outcomes.append(outcome)
        return outcomes


@contextlib.contextmanager
def connected_generators(loads: Sequence[Load]) -> Iterator[GeneratorProcesses]:
    """Run one generator process per load while the block runs. Raises BenchmarkError if one fails."""
    # Spawned, not forked: gRPC may be in use in this process, and does not survive a fork.
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    try:
        for load in loads:
            pipe, child_pipe = context.Pipe()
            process = context.Process(target=load_client.run, args=(load, child_pipe), daemon=True)
            process.start()
            child_pipe.close()
            pipes.append(pipe)
            processes.append(process)
        for pipe in pipes:
            _receive(pipe, _CONNECT_TIMEOUT_S)
        yield GeneratorProcesses(pipes)
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _receive(pipe: Connection, timeout_s: float) -> Outcome | None:
    """Return a process's outcome, or None if it reports that it is connected."""
    try:
        answer: Outcome | str | None = (
            pipe.recv() if pipe.poll(timeout_s) else f"no answer for {timeout_s:g} s"
        )
    except EOFError:
        raise BenchmarkError("A load generator process died. Its error output is above.") from None
    if isinstance(answer, str):
        raise BenchmarkError(f"A load generator process failed: {answer}")
    return answer
