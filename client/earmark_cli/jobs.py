"""Several processes that spot keywords in many recordings: `earmark spot --jobs N`.

One process uses little more than one core. Each process here streams one recording at a time, to the server
that the options name or to one of its own, and returns what it would print. The results are printed in the
order of the recordings, each as a whole.
"""

from __future__ import annotations

import io
import multiprocessing
import signal
import sys
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from earmark_audio.progress import Progress
from earmark_client.errors import EarmarkError

from earmark_cli.actions.detection_actions import EXEC_AT_ONCE, detection_actions
from earmark_cli.connection import connected
from earmark_cli.interrupts import before_termination, termination_deferred
from earmark_cli.output.printer import make_printer
from earmark_cli.stream_runner import RecordingProgress, recordings_phase, stream_recording

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from earmark_client.sync_client import SyncClient

    from earmark_cli.stream_runner import Opener


class _Result(NamedTuple):
    succeeded: bool
    output: str
    errors: str
    fatal: EarmarkError | None  # concerns all recordings, such as a server that cannot be reached


def stream_with_jobs(sources: Sequence[tuple[str, Opener]], args: argparse.Namespace, jobs: int) -> int:
    """Stream recordings in `jobs` processes; print the results in order, and return 1 if any failed."""
    failed = False
    names = [name for name, _ in sources]
    if args.exec is not None:
        args.exec_at_once = max(1, (args.exec_at_once or EXEC_AT_ONCE) // jobs)  # in each process
    pool = ProcessPoolExecutor(min(jobs, len(sources)), multiprocessing.get_context("spawn"))
    with before_termination(_interrupt):
        try:
            with _interrupts_deferred(), termination_deferred():
                results = pool.map(partial(_stream, args, len(sources) > 1), *zip(*sources, strict=True))
            with Progress() as progress, recordings_phase(progress, names) as phase:
                for number, (name, result) in enumerate(zip(names, results, strict=True), 1):
                    sys.stderr.write(result.errors)
                    sys.stderr.flush()
                    sys.stdout.write(result.output)
                    sys.stdout.flush()
                    if result.fatal is not None:
                        raise result.fatal
                    failed = failed or not result.succeeded
                    RecordingProgress(phase, name, number, len(sources)).finish()
        except BrokenProcessPool:
            raise EarmarkError(
                "a process of --jobs was killed. If memory ran out, use fewer --jobs"
            ) from None
        finally:
            for process in multiprocessing.active_children():
                process.terminate()  # it kills its commands of --exec first
            # Wait: if the pool's own thread ended while Python exits, it could write an error to the
            # terminal.
            pool.shutdown(cancel_futures=True)
    return 1 if failed else 0


def _interrupt() -> None:
    raise KeyboardInterrupt


@contextmanager
def _interrupts_deferred() -> Iterator[None]:
    """Defer Ctrl-C while processes start, since one that is half started could not be ended.

    The processes inherit that it is blocked in this thread, and leave it to their parent.
    """
    interrupts: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, _: interrupts.append(number))
    if sys.platform != "win32":
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        if sys.platform != "win32":
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, handler)
    if interrupts:
        raise KeyboardInterrupt


class _Connection:
    """The connection of a worker process. It ends with the process."""

    stack = ExitStack()
    client: SyncClient | None = None

    @classmethod
    def get(cls, args: argparse.Namespace) -> SyncClient:
        if cls.client is None:
            cls.client = cls.stack.enter_context(connected(args))[1]
        return cls.client


def _stream(args: argparse.Namespace, with_headings: bool, name: str, open_source: Opener) -> _Result:
    output, errors = io.StringIO(), io.StringIO()
    succeeded, fatal = False, None
    with redirect_stdout(output), redirect_stderr(errors):
        try:
            printer = make_printer(args, with_headings=with_headings)
            with detection_actions(args) as actions:
                succeeded = stream_recording(
                    name,
                    open_source,
                    partial(_Connection.get, args),
                    args,
                    printer,
                    in_real_time=args.pace,
                    actions=actions,
                )
        except EarmarkError as error:
            fatal = error
    return _Result(succeeded, output.getvalue(), errors.getvalue(), fatal)
