"""The command `earmark-server` as a process, and its log lines."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from support.server_rig import DEADLINE_S

if TYPE_CHECKING:
    from collections.abc import Iterator


class Process:
    """A running `earmark-server`. Methods that wait fail after DEADLINE_S."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        own = {key: value for key, value in os.environ.items() if not key.startswith("EARMARK_")}
        self.begun_s = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "earmark_server", *arguments],
            env={**own, "GRPC_VERBOSITY": "NONE", **environment},
            stderr=subprocess.PIPE,
            text=True,
        )
        self._said: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        # Standard error is closed when the last worker exits.
        self._listener.join(DEADLINE_S)
        assert not self._listener.is_alive()

    def _listen(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as said:
            for line in said:
                self._said.put(line)
        self._said.put(None)

    def text_lines(self) -> Iterator[str]:
        """Yield the lines until the process and its workers have exited."""
        while (line := self._said.get(timeout=DEADLINE_S)) is not None:
            yield line
        self._said.put(None)

    def lines(self) -> Iterator[dict[str, Any]]:
        """Yield the same lines as objects; requires --log-format=json and complete lines."""
        return map(json.loads, self.text_lines())

    def wait_for(self, event: str, **fields: Any) -> dict[str, Any]:
        """Skip lines until that of an event with these fields, and return it."""
        seen = []
        for line in self.lines():
            seen.append(line)
            if line["event"] == event and fields.items() <= line.items():
                return line
        raise AssertionError(f"it ended without {event} {fields}: {seen}")

    def end(self) -> tuple[int, str]:
        """Wait for the exit; return the exit code and the remaining lines."""
        return self.process.wait(DEADLINE_S), "".join(self.text_lines())
