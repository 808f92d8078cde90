"""Fault injection in servers: processes that are killed, frozen, drained and restarted."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any, Self

from support.deadlines import DEADLINE_S
from support.ports import free_port
from support.server_process import ServerProcess

if TYPE_CHECKING:
    from pathlib import Path


class RestartableServer:
    """`earmark-server` as a process on its own port, which can be restarted on the same port."""

    def __init__(
        self, model_path: Path | None = None, *arguments: str, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        self.port = port or free_port()
        self.address = f"{host}:{self.port}"
        self.model_path = model_path
        self.environment: dict[str, str] = {}
        self._arguments = (f"--host={host}", *arguments)
        self._server: ServerProcess | None = None

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
        command = [f"--port={self.port}", "--log-format=json"]
        if self.model_path is not None:
            command.append(f"--model={self.model_path}")
        self._server = ServerProcess(*command, *self._arguments, *arguments, **self.environment)
        self.wait_for("serving")

    @property
    def pid(self) -> int:
        """The id of the server's process."""
        assert self._server is not None
        return self._server.process.pid

    def wait_for(self, event: str, **fields: Any) -> dict[str, Any]:
        """Skip log lines until that of an event with these fields, and return it."""
        assert self._server is not None
        return self._server.wait_for(event, **fields)

    def ended_calls(self) -> int:
        """Count the calls that have ended since the last line that was waited for."""
        assert self._server is not None
        return sum(line["event"] == "call ended" for line in self._server.pending_lines())

    def kill(self) -> None:
        """Kill the server with SIGKILL."""
        if self._server is not None:
            self._server.kill()

    def freeze(self) -> None:
        """Freeze the server with SIGSTOP; its connections stay open."""
        assert self._server is not None
        self._server.process.send_signal(signal.SIGSTOP)

    def drain(self) -> None:
        """Drain the server with SIGTERM."""
        assert self._server is not None
        self._server.process.terminate()

    def wait(self) -> int:
        """Wait for the exit of the server, and return its exit code."""
        assert self._server is not None
        return self._server.process.wait(DEADLINE_S)
