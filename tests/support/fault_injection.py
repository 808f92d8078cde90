"""Fault injection: servers that are killed, frozen and drained, and connections that are cut."""

from __future__ import annotations

import contextlib
import enum
import json
import os
import queue
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Self

from support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

TIMEOUT_S = 60


class Server:
    """`earmark-server` as a process on its own port, which can be restarted on the same port."""

    def __init__(
        self, model_path: Path | None = None, *arguments: str, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        self.port = port or free_port()
        self.address = f"{host}:{self.port}"
        self.model_path = model_path
        self.environment: dict[str, str] = {}
        self._arguments = (f"--host={host}", *arguments)
        self._process: subprocess.Popen[str] | None = None
        self._lines: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self, *arguments: str) -> None:
        """Start the server with additional arguments, and wait until it is serving."""
        command = [sys.executable, "-m", "earmark_server", f"--port={self.port}", "--log-format=json"]
        if self.model_path is not None:
            command.append(f"--model={self.model_path}")
        environment = {
            key: value for key, value in os.environ.items() if not key.startswith(("EARMARK_", "GRPC_"))
        }
        self._process = subprocess.Popen(
            [*command, *self._arguments, *arguments],
            stderr=subprocess.PIPE,
            text=True,
            env={**environment, **self.environment},
        )
        self._lines = queue.SimpleQueue()
        threading.Thread(target=self._read, args=(self._process.stderr, self._lines), daemon=True).start()
        self.wait_for("serving")

    @staticmethod
    def _read(log: Any, lines: queue.SimpleQueue[dict[str, Any] | None]) -> None:
        with log:
            for line in log:
                lines.put(json.loads(line))
        lines.put(None)

    def wait_for(self, event: str) -> dict[str, Any]:
        """Wait for a line of the log."""
        deadline_s = time.monotonic() + TIMEOUT_S
        while (line := self._lines.get(timeout=max(0.0, deadline_s - time.monotonic()))) is not None:
            if line["event"] == event:
                return line
        raise AssertionError(f"the server ended, and never said {event!r}")

    def ended_calls(self) -> int:
        """Count the calls that have ended since the last line that was waited for."""
        lines = []
        with contextlib.suppress(queue.Empty):
            while True:
                lines.append(self._lines.get_nowait())
        for line in lines:
            self._lines.put(line)
        return sum(line is not None and line["event"] == "call ended" for line in lines)

    def kill(self) -> None:
        """Kill the server with SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(TIMEOUT_S)

    def freeze(self) -> None:
        """Freeze the server with SIGSTOP; its connections stay open."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def drain(self) -> None:
        """Drain the server with SIGTERM."""
        assert self._process is not None
        self._process.terminate()

    def wait(self) -> int:
        """Wait for the exit of the server, and return its exit code."""
        assert self._process is not None
        return self._process.wait(TIMEOUT_S)


class Direction(enum.Enum):
    """The direction of bytes."""

    REQUESTS = enum.auto()
    ANSWERS = enum.auto()


class Proxy:
    """A proxy that cuts each connection after a number of bytes in one direction.

    `cuts` gives for each connection in turn which direction and how many bytes, None for no cut. Every
    other cut is a reset, the rest an orderly close.
    """

    def __init__(self, port: int, cuts: Callable[[], tuple[Direction, int] | None] = lambda: None) -> None:
        self.target_port = port
        self.swallows_answers = False
        self.connections = 0
        self.cut_count = 0
        self._cuts = cuts
        self._open: list[tuple[socket.socket, socket.socket]] = []
        self._lock = threading.Lock()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self.cut()

    def cut(self) -> None:
        """Cut all open connections."""
        with self._lock:
            pairs, self._open = self._open, []
        for pair in pairs:
            self._close(*pair)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._listening.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self._next_port()))
                except OSError:  # no server
                    client.close()
                    continue
                self.connections += 1
                with self._lock:
                    self._open.append((client, server))
                cut = self._cuts()
                for direction, source, sink in (
                    (Direction.REQUESTS, client, server),
                    (Direction.ANSWERS, server, client),
                ):
                    limit = cut[1] if cut is not None and cut[0] is direction else None
                    arguments = (source, sink, direction, limit)
                    threading.Thread(target=self._pump, args=arguments, daemon=True).start()

    def _next_port(self) -> int:
        return self.target_port

    def _pump(
        self, source: socket.socket, sink: socket.socket, direction: Direction, limit: int | None
    ) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                if direction is Direction.REQUESTS or not self.swallows_answers:
                    sink.sendall(data if limit is None else data[:limit])
                if limit is not None:
                    limit -= len(data)
                    if limit <= 0:
                        self._cut_off(source, sink)
                        break
        self._close(source, sink)

    def _cut_off(self, *pair: socket.socket) -> None:
        self.cut_count += 1
        if self.cut_count % 2:
            for one in pair:
                with contextlib.suppress(OSError):  # l_onoff, l_linger: a reset
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    @staticmethod
    def _close(*pair: socket.socket) -> None:
        for one in pair:
            with contextlib.suppress(OSError):
                # Wakes the thread that reads it. Not before a reset, which the peer must notice first.
                if one.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER) == 0:
                    one.shutdown(socket.SHUT_RDWR)
            one.close()


class Balancer(Proxy):
    """Forwards each connection to the next of several servers; the list may be changed."""

    def __init__(self, *ports: int) -> None:
        self.ports = list(ports)
        super().__init__(0)

    def _next_port(self) -> int:
        return self.ports[self.connections % len(self.ports)]


@contextlib.contextmanager
def eventually(what: str) -> Iterator[Callable[[bool], bool]]:
    """Return a function that returns whether to continue to wait, until a deadline."""
    deadline_s = time.monotonic() + TIMEOUT_S

    def waiting(done: bool) -> bool:
        if done:
            return False
        assert time.monotonic() < deadline_s, f"waited in vain for {what}"
        time.sleep(0.01)
        return True

    yield waiting
