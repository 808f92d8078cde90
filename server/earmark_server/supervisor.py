"""Several workers on one port: they are started, told when to go, and replaced when they die.

A worker is a whole server in a process of its own, with its own models and its own limits; the kernel gives
each new connection to one of them (SO_REUSEPORT). Their supervisor is the process that was asked for them.
It makes no gRPC object, and starts them as new processes: gRPC does not survive a fork.

Between the two is a line, a pair of connected sockets of which one is the worker's standard input:

    the worker says       "serving"; or "problem ...", and ends
    the supervisor says   "drain"; the end of the line means: end at once

So a worker knows when its supervisor is gone, however that came about, and is drained only once where a
service manager signals every process of a service by itself.
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

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from earmark_server.settings import Settings

_LOGGER = logging.getLogger(__name__)

# The first argument of a worker, and what is said on the line.
_WORKER = "--a-worker"
_SERVING = b"serving\n"
_PROBLEM = b"problem "
_DRAIN = b"drain\n"

# A worker that lived for less than this waits before it is replaced, twice as long each time.
_STEADY_S = 10.0
_SHORTEST_WAIT_S = 0.5
_LONGEST_WAIT_S = 10.0

# A worker that has not done what it was told after this long is stuck.
_STUCK_S = 5.0


class Line:
    """A worker's end of the line to its supervisor."""

    def __init__(self) -> None:
        self._socket = socket.socket(fileno=os.dup(0))

    @classmethod
    def take(cls, arguments: Sequence[str]) -> Line | None:
        """Take the line if this process was started as a worker; its first argument is used up then."""
        is_worker = arguments[:1] == [_WORKER] and stat.S_ISSOCK(os.fstat(0).st_mode)
        return cls() if is_worker else None

    def watch(self, on_drain: Callable[[], None], on_end: Callable[[], None]) -> None:
        """From now on, tell what the supervisor says; on the running event loop."""
        loop = asyncio.get_running_loop()
        self._socket.setblocking(False)

        def on_said() -> None:
            try:
                said = self._socket.recv(len(_DRAIN))
            except ConnectionError:
                said = b""
            if said:
                on_drain()
            else:
                loop.remove_reader(self._socket)
                on_end()

        loop.add_reader(self._socket, on_said)

    def say_serving(self) -> None:
        """Tell that this worker can take calls."""
        self._say(_SERVING)

    def say_problem(self, problem: str) -> None:
        """Tell why this worker cannot start; the supervisor says it once for all of them."""
        self._say(_PROBLEM + " ".join(problem.split()).encode()[:4000] + b"\n")

    def _say(self, what: bytes) -> None:
        with contextlib.suppress(ConnectionError):  # Nobody is there: `watch` tells.
            self._socket.sendall(what)


def supervise(settings: Settings, arguments: Sequence[str]) -> int:
    """Run `settings.workers` workers until a signal; `arguments` are what the command was given.

    The first SIGTERM or SIGINT drains them, a second one ends them at once. Returns 0 if all of
    them drained, 1 if one did not, or if they could not start.
    """
    with contextlib.ExitStack() as held:
        try:
            port = _reserve(settings, held)
        except OSError as error:
            in_use = "the port is in use (choose another with --port, or 0 for a free one)"
            why = in_use if error.errno == errno.EADDRINUSE else error.strerror
            _log_cannot_start(f"Cannot listen on {settings.address(settings.port)}: {why}.")
            return 1
        return asyncio.run(_Supervisor(settings, arguments, port).run())


def _reserve(settings: Settings, held: contextlib.ExitStack) -> int:
    """Bind the port for as long as `held` is, and return it; raises OSError if it is not to be had.

    Nothing listens here, so no connection comes here; and the port stays taken while no worker has it.
    """
    addresses = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)
    port, bound = settings.port, False
    problem: OSError | None = None
    for family, kind, protocol, _, address in addresses:
        one = held.enter_context(socket.socket(family, kind, protocol))
        # As a lone server binds it: what is left of old connections does not matter; another server
        # does, also one that would share. Only then may it be shared, with the workers.
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind((address[0], port, *address[2:]))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise
            problem = error  # A name may have an address that this machine lacks, such as ::1.
            continue
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        port, bound = one.getsockname()[1], True
    if not bound and problem is not None:
        raise problem
    return port


def _log_cannot_start(problem: str) -> None:
    log(_LOGGER, logging.ERROR, "cannot start", problem=problem)


@dataclass(frozen=True, slots=True)
class _Ending:
    """How a worker ended, as the log has it; without its process id, it could not even be started."""

    worker: int | None = None
    exit_code: int | None = None
    signal: str | None = None
    problem: str | None = None


class _Worker:
    """A worker's process, as its supervisor sees it."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.pid = process.pid
        self.serves = False
        self._problem: str | None = None
        self._process = process
        self._reader, self._writer = reader, writer

    @classmethod
    async def start(cls, command: Sequence[str]) -> _Worker:
        """Start one; raises OSError if there can be no more processes."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                # A group of its own: Ctrl-C at the terminal is for the supervisor, which passes it on.
                process = await asyncio.create_subprocess_exec(
                    *command, stdin=theirs.fileno(), process_group=0
                )
        except OSError:
            ours.close()
            raise
        return cls(process, *await asyncio.open_connection(sock=ours))

    async def ended(self, on_serving: Callable[[], None]) -> _Ending:
        """Listen to it until it has ended."""
        with contextlib.suppress(ConnectionError):
            while said := await self._reader.readline():
                if said == _SERVING:
                    self.serves = True
                    on_serving()
                elif said.startswith(_PROBLEM):
                    self._problem = said.removeprefix(_PROBLEM).decode(errors="replace").strip()
        code = await self._process.wait()
        self._writer.close()
        if code < 0:
            return _Ending(self.pid, signal=signal.Signals(-code).name, problem=self._problem)
        return _Ending(self.pid, exit_code=code, problem=self._problem)

    def drain(self) -> None:
        """Tell it to go away politely."""
        self._writer.write(_DRAIN)

    def cut(self) -> None:
        """Tell it to end at once."""
        self._writer.close()

    def kill(self) -> None:
        """End it, whatever it does."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()


class _Supervisor:
    """Keeps the workers running, from their start to their end."""

    def __init__(self, settings: Settings, arguments: Sequence[str], port: int) -> None:
        self._settings = settings
        self._port = port
        # The same command again; of options given twice the last one counts. -P: a file in the current
        # folder is nobody's module.
        self._command = [sys.executable, "-P", "-m", "earmark_server", _WORKER, *arguments]
        self._command += [f"--port={port}", "--workers=1"]
        self._workers: set[_Worker] = set()
        self._begun_s = time.monotonic()
        self._have_served = False
        self._cannot_start: str | None = None
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()

    async def run(self) -> int:
        """Start the workers and keep them until a signal, then end them; returns the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)
        async with asyncio.TaskGroup() as group:
            keepers = [group.create_task(self._keep(i)) for i in range(self._settings.workers)]
            await self._stopping.wait()
            if self._cannot_start is None:
                log(_LOGGER, logging.INFO, "draining", workers=len(self._workers))
                await self._drain(keepers)
            for worker in self._workers:
                worker.cut()
            await asyncio.wait(keepers, timeout=_STUCK_S)
            for worker in self._workers:
                worker.kill()
        if self._cannot_start is not None:
            _log_cannot_start(self._cannot_start)
            return 1
        log(_LOGGER, logging.INFO, "stopped")
        return 0 if all(keeper.result() for keeper in keepers) else 1

    def _on_signal(self) -> None:
        (self._hurry if self._stopping.is_set() else self._stopping).set()

    async def _drain(self, keepers: Sequence[asyncio.Task[bool]]) -> None:
        """Drain the workers: until all have ended, a second signal comes, or one must be stuck."""
        for worker in self._workers:
            worker.drain()
        hurry = asyncio.create_task(self._hurry.wait())
        all_ended = asyncio.create_task(asyncio.wait(keepers))
        longest_s = self._settings.drain_grace_s + _STUCK_S
        await asyncio.wait((hurry, all_ended), timeout=longest_s, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        all_ended.cancel()

    async def _keep(self, index: int) -> bool:
        """Have a worker, and another one whenever it ends, until all stop; returns whether that went well.

        `index`: its number among the workers.
        """
        wait_s = 0.0
        while True:
            begun_s = time.monotonic()
            served, ending = await self._run_one(index)
            if self._stopping.is_set():
                # Why they could not start, if so, is said once for all.
                log(_LOGGER, logging.INFO, "worker ended", **asdict(replace(ending, problem=None)))
                return ending.exit_code == 0
            if not (served or self._have_served):
                how = ending.signal or f"exit code {ending.exit_code}"
                self._cannot_start = ending.problem or f"A worker ended before it served ({how})."
                self._stopping.set()
                return False
            steady = time.monotonic() - begun_s >= _STEADY_S
            wait_s = 0.0 if steady else min(max(2 * wait_s, _SHORTEST_WAIT_S), _LONGEST_WAIT_S)
            log(_LOGGER, logging.WARNING, "worker ended", **asdict(ending), restart_in_s=wait_s)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), wait_s)
                return True

    async def _run_one(self, index: int) -> tuple[bool, _Ending]:
        """Run one worker to its end; returns whether it served, and how it ended."""
        command = self._command
        for name in ("health_port", "metrics_port"):
            if port := getattr(self._settings, name):
                command = [*command, f"--{name.replace('_', '-')}={port + index}"]
        try:
            worker = await _Worker.start(command)
        except OSError as error:
            return False, _Ending(problem=f"There can be no more processes for workers: {error.strerror}.")
        self._workers.add(worker)
        log(_LOGGER, logging.INFO, "worker started", worker=worker.pid)
        if self._stopping.is_set():
            worker.drain()
        ending = await worker.ended(self._on_serving)
        self._workers.remove(worker)
        return worker.serves, ending

    def _on_serving(self) -> None:
        """Tell, the first time, that all workers can take calls."""
        count = sum(worker.serves for worker in self._workers)
        if count < self._settings.workers or self._have_served:
            return
        self._have_served = True
        log(
            _LOGGER,
            logging.INFO,
            "serving",
            host=self._settings.host,
            port=self._port,
            workers=count,
            start_s=round(time.monotonic() - self._begun_s, 3),
        )
