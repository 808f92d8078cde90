"""Descriptors in reserve, so that the guard can work while clients occupy all others of the process."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_COUNT = 2
"""The guard opens one file or socket at a time. gRPC may take the other one for a connection meanwhile."""


class DescriptorReserve:
    """A few descriptors that nothing else can take, for one thread."""

    def __init__(self) -> None:
        self._held: list[int] = []
        self._fill()

    @contextlib.contextmanager
    def released(self) -> Iterator[None]:
        """Let the block use the descriptors."""
        self.close()
        try:
            yield
        finally:
            self._fill()

    def close(self) -> None:
        """Give the descriptors back."""
        while self._held:
            os.close(self._held.pop())

    def _fill(self) -> None:
        with contextlib.suppress(OSError):  # there are none now
            while len(self._held) < _COUNT:
                self._held.append(os.open(os.devnull, os.O_RDONLY))
