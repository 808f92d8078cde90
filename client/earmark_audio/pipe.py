"""A pipe: its first bytes, before they are read, and the rest as it comes."""

from __future__ import annotations

import contextlib
from typing import BinaryIO

from earmark_audio.startup import make_blocking

_BLOCK_BYTES = 1 << 16


class Pipe:
    """A binary file that cannot seek, such as standard input. It is left open, and becomes blocking."""

    def __init__(self, file: BinaryIO) -> None:
        with contextlib.suppress(OSError):  # it has no descriptor
            make_blocking(file.fileno())
        # A read of a buffered file would wait until the whole block has come.
        self._read = getattr(file, "read1", file.read)
        self._pending = b""
        self._is_terminal = file.isatty()

    @property
    def is_terminal(self) -> bool:
        """Whether a person types into it."""
        return self._is_terminal

    def peek(self, size: int) -> bytes:
        """Wait for `size` bytes and return them, or all up to the end; they remain to be read."""
        pieces, length = [self._pending], len(self._pending)
        while length < size and (data := self._read(_BLOCK_BYTES)):
            pieces.append(data)
            length += len(data)
        self._pending = b"".join(pieces)
        return self._pending[:size]

    def read_some(self, limit: int) -> bytes:
        """Return what has come, at least one byte and at most `limit`; nothing at the end."""
        if not self._pending:
            data: bytes = self._read(limit)
            return data
        data, self._pending = self._pending[:limit], self._pending[limit:]
        return data

    def skip(self, size: int) -> int:
        """Read `size` bytes without returning them; return how many there were."""
        left = size
        while left and (data := self.read_some(min(left, _BLOCK_BYTES))):
            left -= len(data)
        return size - left
