"""The command `earmark-server` as a process, and its log."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from support.deadlines import DEADLINE_S
from support.environment import clean_environment

if TYPE_CHECKING:
    from collections.abc import Iterator


class ServerProcess:
    """A running `earmark-server`. Methods that wait fail after DEADLINE_S."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        self.started_s = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "earmark_server", *arguments],
            env={**clean_environment(GRPC_VERBOSITY="NONE"), **environment},
            stderr=subprocess.PIPE,
            text=True,
        )
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        """Kill the server with SIGKILL, and wait until it has ended."""
        self.process.kill()
        self.process.wait()
        # Standard error is closed when the last worker exits.
        self._reader.join(DEADLINE_S)
        assert not self._reader.is_alive()

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as log:
            for line in log:
                self._lines.put(line)
        self._lines.put(None)

    def text_lines(self) -> Iterator[str]:
        """Yield the lines until the process and its workers have exited."""
        while (line := self._lines.get(timeout=DEADLINE_S)) is not None:
            yield line
        self._lines.put(None)

    def lines(self) -> Iterator[dict[str, Any]]:
        """Yield the same lines as objects; requires --log-format=json and complete lines."""
        return map(json.loads, self.text_lines())

    def pending_lines(self) -> list[dict[str, Any]]:
        """Return the lines that have been logged and not been read, which remains so."""
        lines = []
        with suppress(queue.Empty):
            while True:
                lines.append(self._lines.get_nowait())
        for line in lines:
            self._lines.put(line)
        return [json.loads(line) for line in lines if line is not None]

    def wait_for(self, event: str, **fields: Any) -> dict[str, Any]:
        """Skip lines until that of an event with these fields, and return it."""
        seen = []
        for line in self.lines():
            seen.append(line)
            if line["event"] == event and fields.items() <= line.items():
                return line
        raise AssertionError(f"it ended without {event} {fields}: {seen}")

    def wait_until_serving(self) -> int:
        """Wait until the server is serving, and return its port; requires --log-format=json."""
        port = None
        for line in self.lines():
            port = line.get("port", port)
            if line["event"] == "serving":
                assert port is not None
                return port
        raise AssertionError("the server exited before it was serving")

    def end(self) -> tuple[int, str]:
        """Wait for the exit; return the exit code and the remaining lines."""
        return self.process.wait(DEADLINE_S), "".join(self.text_lines())
