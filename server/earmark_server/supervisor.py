"""The supervisor: starts several workers on one port, drains them, and replaces those that exit.

A worker is a complete server in its own process, with its own models and limits. The kernel assigns
each new connection to one of them (SO_REUSEPORT). The supervisor is the process that was started with
--workers. gRPC does not survive a fork, so the supervisor creates no gRPC object, and starts each worker as
a new process.

A link connects each worker to the supervisor: a pair of sockets, of which one is the worker's standard input.

    the worker sends       "serving"; or "problem ..." before it exits
    the supervisor sends   "drain"; it closes the link to stop the worker at once

So a worker notices in any case when its supervisor is gone. It is drained only once, even if a service
manager sends the signal to every process of the service.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
import stat
import sys
import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from earmark_server.logs import log
from earmark_server.memory.limit import MEMORY_SHARE, memory_limit_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from earmark_server.settings import Settings

_LOGGER = logging.getLogger(__name__)

# The first argument of a worker, and the messages on the link.
_WORKER = "--supervised-worker"
_SERVING = b"serving\n"
_PROBLEM = b"problem "
_DRAIN = b"drain\n"
_MAX_PROBLEM_BYTES = 4000

# A worker that has run for less than this is replaced after a delay, which doubles each time.
_STEADY_S = 10.0
_MIN_RESTART_DELAY_S = 0.5
_MAX_RESTART_DELAY_S = 10.0

# A worker that has not ended this long after its grace period is killed.
_KILL_TIMEOUT_S = 5.0


class SupervisorLink:
    """A worker's end of the link to its supervisor."""

    def __init__(self) -> None:
        self._socket = socket.socket(fileno=os.dup(0))

    @classmethod
    def open(cls, arguments: Sequence[str]) -> SupervisorLink | None:
        """Return the link if this process was started as a worker, as its first argument shows; else None."""
        is_worker = arguments[:1] == [_WORKER] and stat.S_ISSOCK(os.fstat(0).st_mode)
        return cls() if is_worker else None

    def watch(self, on_drain: Callable[[], None], on_stop: Callable[[], None]) -> None:
        """Call a function when the supervisor sends its message or is gone, on the running event loop."""
        loop = asyncio.get_running_loop()
        self._socket.setblocking(False)

        def on_readable() -> None:
            try:
                message = self._socket.recv(len(_DRAIN))
            except ConnectionError:
                message = b""
            if message:
                on_drain()
            else:
                loop.remove_reader(self._socket)
                on_stop()

        loop.add_reader(self._socket, on_readable)

    def report_serving(self) -> None:
        """Report that this worker accepts calls."""
        self._send(_SERVING)

    def report_problem(self, problem: str) -> None:
        """Report why this worker cannot start; the supervisor logs it once for all workers."""
        self._send(_PROBLEM + " ".join(problem.split()).encode()[:_MAX_PROBLEM_BYTES] + b"\n")

    def _send(self, message: bytes) -> None:
        with contextlib.suppress(ConnectionError):  # The supervisor is gone; `watch` reports it.
            self._socket.sendall(message)


def drain_signals() -> Sequence[signal.Signals]:
    """Return the signals that drain a server; a second one ends it at once."""
    numbers = [signal.SIGTERM, signal.SIGINT]
    # nohup makes a process ignore SIGHUP, and that should stay.
    if sys.platform != "win32" and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    return numbers


def on_drain_signals(callback: Callable[[], object]) -> None:
    """Call a function on the running event loop for each of these signals.

    The handlers are not the loop's own: it restores the default action when it closes, and one more signal
    would then end the process while Python cleans up, with another exit code.
    """
    loop = asyncio.get_running_loop()

    def handle(_number: int, _frame: object) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(callback)

    for number in drain_signals():
        signal.signal(number, handle)


def ignore_drain_signals() -> None:
    """Ignore further signals, because the process is about to exit."""
    for number in drain_signals():
        signal.signal(number, signal.SIG_IGN)


def supervise(settings: Settings, arguments: Sequence[str]) -> int:
    """Run `settings.workers` workers until a signal; return the exit code.

    `arguments`: those of the command. The first SIGTERM, SIGINT or SIGHUP drains the workers, a second one
    stops them at once. The exit code is 0 if all workers were drained, and 1 if one was not, or if they could
    not start.
    """
    with contextlib.ExitStack() as sockets:
        try:
            port = _reserve_port(settings, sockets)
        except OSError as error:
            in_use = "the port is in use (choose another one with --port, or 0 for a free one)"
            reason = in_use if error.errno == errno.EADDRINUSE else error.strerror
            _log_cannot_start(f"Cannot listen on {settings.address(settings.port)}: {reason}.")
            return 1
        return asyncio.run(_Supervisor(settings, arguments, port).run())


def _reserve_port(settings: Settings, sockets: contextlib.ExitStack) -> int:
    """Bind the port until `sockets` is closed, and return it; OSError if it cannot be bound.

    These sockets do not listen, so they receive no connections. They keep the port reserved while no worker
    has it.
    """
    addresses = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)
    port, bound = settings.port, False
    problem: OSError | None = None
    for family, kind, protocol, _, address in addresses:
        reserved = sockets.enter_context(socket.socket(family, kind, protocol))
        # Bind like a single server: remains of old connections do not matter, but another server does, even
        # one that shares its port. Only after that, share the port with the workers.
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            reserved.bind((address[0], port, *address[2:]))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise
            problem = error  # A name may resolve to an address that this machine lacks, such as ::1.
            continue
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        port, bound = reserved.getsockname()[1], True
    if not bound and problem is not None:
        raise problem
    return port


def _log_cannot_start(problem: str) -> None:
    log(_LOGGER, logging.ERROR, "cannot start", problem=problem)


@dataclass(frozen=True, slots=True)
class _Ending:
    """How a worker ended, as the log states it; `worker` is None if it could not be started."""

    worker: int | None = None
    exit_code: int | None = None
    signal: str | None = None
    problem: str | None = None


class _Worker:
    """A worker's process, and the supervisor's end of the link to it."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.pid = process.pid
        self.has_served = False
        self._problem: str | None = None
        self._process = process
        self._reader, self._writer = reader, writer

    @classmethod
    async def start(cls, command: Sequence[str]) -> _Worker:
        """Start a worker; OSError if no more processes can be created."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                # Its own process group: Ctrl-C at the terminal reaches only the supervisor.
                process = await asyncio.create_subprocess_exec(
                    *command, stdin=theirs.fileno(), process_group=0
                )
        except OSError:
            ours.close()
            raise
        return cls(process, *await asyncio.open_connection(sock=ours))

    async def wait_until_ended(self, on_serving: Callable[[], None]) -> _Ending:
        """Read the link until the worker has ended."""
        with contextlib.suppress(ConnectionError):
            while message := await self._reader.readline():
                if message == _SERVING:
                    self.has_served = True
                    on_serving()
                elif message.startswith(_PROBLEM):
                    self._problem = message.removeprefix(_PROBLEM).decode(errors="replace").strip()
        code = await self._process.wait()
        self._writer.close()
        if code < 0:
            # Most real-time signals have no name.
            name = next((each.name for each in signal.Signals if each == -code), str(-code))
            return _Ending(self.pid, signal=name, problem=self._problem)
        return _Ending(self.pid, exit_code=code, problem=self._problem)

    def drain(self) -> None:
        """Ask the worker to drain."""
        self._writer.write(_DRAIN)

    def stop(self) -> None:
        """Ask the worker to stop at once."""
        self._writer.close()

    def kill(self) -> None:
        """Kill the worker's process."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()


class _Supervisor:
    """Starts the workers, replaces those that end, and drains them."""

    def __init__(self, settings: Settings, arguments: Sequence[str], port: int) -> None:
        self._settings = settings
        self._port = port
        # The same command again; of an option that is given twice, the last value counts. -P keeps Python
        # from importing modules from the current folder.
        self._command = [sys.executable, "-P", "-m", "earmark_server", _WORKER, *arguments]
        self._command += [f"--port={port}", "--workers=1"]
        limit_bytes = memory_limit_bytes()
        if not settings.max_memory_bytes and limit_bytes is not None:
            share_bytes = int(limit_bytes * MEMORY_SHARE / settings.workers)
            self._command.append(f"--max-memory-bytes={share_bytes}")
        self._workers: set[_Worker] = set()
        self._started_s = time.monotonic()
        self._all_have_served = False
        self._cannot_start: str | None = None
        self._stopping = asyncio.Event()
        self._stop_at_once = asyncio.Event()

    async def run(self) -> int:
        """Start the workers, keep them running until a signal, and end them; return the exit code."""
        on_drain_signals(self._on_signal)
        async with asyncio.TaskGroup() as group:
            keepers = [group.create_task(self._keep_running(i)) for i in range(self._settings.workers)]
            await self._stopping.wait()
            if self._cannot_start is None:
                log(_LOGGER, logging.INFO, "draining", workers=len(self._workers))
                await self._drain(keepers)
            for worker in self._workers:
                worker.stop()
            await asyncio.wait(keepers, timeout=_KILL_TIMEOUT_S)
            for worker in self._workers:
                worker.kill()
        ignore_drain_signals()
        if self._cannot_start is not None:
            _log_cannot_start(self._cannot_start)
            return 1
        log(_LOGGER, logging.INFO, "stopped")
        return 0 if all(keeper.result() for keeper in keepers) else 1

    def _on_signal(self) -> None:
        (self._stop_at_once if self._stopping.is_set() else self._stopping).set()

    async def _drain(self, keepers: Sequence[asyncio.Task[bool]]) -> None:
        """Drain the workers until all have ended, a second signal arrives, or the time is up."""
        for worker in self._workers:
            worker.drain()
        second_signal = asyncio.create_task(self._stop_at_once.wait())
        all_ended = asyncio.create_task(asyncio.wait(keepers))
        timeout_s = self._settings.drain_grace_s + _KILL_TIMEOUT_S
        await asyncio.wait((second_signal, all_ended), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        second_signal.cancel()
        all_ended.cancel()

    async def _keep_running(self, index: int) -> bool:
        """Run a worker, and another one whenever it ends, until all stop.

        `index`: the number of the worker. Return whether the last one was drained.
        """
        delay_s = 0.0
        while True:
            started_s = time.monotonic()
            had_served, ending = await self._run_one(index)
            if self._stopping.is_set():
                # A problem is logged once for all workers.
                log(_LOGGER, logging.INFO, "worker ended", **asdict(replace(ending, problem=None)))
                return ending.exit_code == 0
            if not (had_served or self._all_have_served):
                how = ending.signal or f"exit code {ending.exit_code}"
                self._cannot_start = ending.problem or f"A worker ended before it was serving ({how})."
                self._stopping.set()
                return False
            steady = time.monotonic() - started_s >= _STEADY_S
            delay_s = 0.0 if steady else min(max(2 * delay_s, _MIN_RESTART_DELAY_S), _MAX_RESTART_DELAY_S)
            log(_LOGGER, logging.WARNING, "worker ended", **asdict(ending), restart_in_s=delay_s)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay_s)
                return True

    async def _run_one(self, index: int) -> tuple[bool, _Ending]:
        """Run one worker until it ends; return whether it was serving, and how it ended."""
        command = self._command
        for name in ("health_port", "metrics_port"):
            if port := getattr(self._settings, name):
                command = [*command, f"--{name.replace('_', '-')}={port + index}"]
        try:
            worker = await _Worker.start(command)
        except OSError as error:
            return False, _Ending(problem=f"No process can be created for a worker: {error.strerror}.")
        self._workers.add(worker)
        log(_LOGGER, logging.INFO, "worker started", worker=worker.pid)
        if self._stopping.is_set():
            worker.drain()
        ending = await worker.wait_until_ended(self._on_serving)
        self._workers.remove(worker)
        return worker.has_served, ending

    def _on_serving(self) -> None:
        """Log once that all workers accept calls."""
        count = sum(worker.has_served for worker in self._workers)
        if count < self._settings.workers or self._all_have_served:
            return
        self._all_have_served = True
        log(
            _LOGGER,
            logging.INFO,
            "serving",
            host=self._settings.host,
            port=self._port,
            workers=count,
            start_s=round(time.monotonic() - self._started_s, 3),
        )
