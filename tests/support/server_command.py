"""The command `earmark-server` as a process, and its log lines as they come."""

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
    """A running `earmark-server`. What waits here fails after DEADLINE_S."""

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
        # Standard error ends with the last of its workers.
        self._listener.join(DEADLINE_S)
        assert not self._listener.is_alive()

    def _listen(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as said:
            for line in said:
                self._said.put(line)
        self._said.put(None)

    def text_lines(self) -> Iterator[str]:
        """Give the lines from here to the end of the process, and of its workers."""
        while (line := self._said.get(timeout=DEADLINE_S)) is not None:
            yield line
        self._said.put(None)

    def lines(self) -> Iterator[dict[str, Any]]:
        """Give the same as objects; needs --log-format=json, and that each line is whole."""
        return map(json.loads, self.text_lines())

    def wait_for(self, event: str, **fields: Any) -> dict[str, Any]:
        """Pass over lines up to that of an event, with these fields."""
        seen = []
        for line in self.lines():
            seen.append(line)
            if line["event"] == event and fields.items() <= line.items():
                return line
        raise AssertionError(f"it ended without {event} {fields}: {seen}")

    def end(self) -> tuple[int, str]:
        """Wait for its end; its exit code, and the lines that are left."""
        return self.process.wait(DEADLINE_S), "".join(self.text_lines())
