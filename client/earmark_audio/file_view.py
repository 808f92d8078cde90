"""A part of a file, presented to a decoder as a whole file."""

from __future__ import annotations

import io
from bisect import bisect_right
from typing import BinaryIO

_PRETENDED_BYTES = 1 << 50
_SHORTER = "The recording is truncated: the file has become shorter while it was read."
_TAIL_BYTES = 1024
"""Zeros are read at the pretended end, where decoders look for a tag."""


class FileView(io.RawIOBase):
    """Some runs of a file's bytes, one after the other, with a few of them replaced.

    `runs`: (offset, length) pairs in the file. `patches`: replacements by their offset in the view.
    `unbounded`: pretend that no end is in sight, for decoders that derive the length of the audio from the
    length of the file, or from its header, and stop there. Reading ends where the runs end all the same.
    """

    def __init__(
        self,
        file: BinaryIO,
        runs: list[tuple[int, int]],
        *,
        patches: dict[int, bytes] | None = None,
        unbounded: bool = False,
    ) -> None:
        super().__init__()
        self._file = file
        self._offsets = [offset for offset, _ in runs]
        self._starts = [0]
        for _, length in runs:
            self._starts.append(self._starts[-1] + length)
        self.patches = patches or {}
        self.is_unbounded = unbounded
        self.problem: str | None = None
        """A sentence if the file could not be read, or has become shorter since. The view ended there."""
        self._position = 0

    @property
    def size(self) -> int:
        """Length in bytes."""
        return self._starts[-1]

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position in the view."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set the position, which may lie beyond the end."""
        end = _PRETENDED_BYTES if self.is_unbounded else self.size
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: end}[whence]
        self._position = max(0, origin + offset)
        return self._position

    def read(self, size: int | None = -1, /) -> bytes:
        """Read up to `size` bytes, or all that are left."""
        if self.is_unbounded and size and self._position >= _PRETENDED_BYTES - _TAIL_BYTES:
            return bytes(max(0, min(size, _PRETENDED_BYTES - self._position)))
        end = self.size if size is None or size < 0 else min(self.size, self._position + size)
        pieces = []
        while self._position < end:
            try:
                piece = self._read_run(end)
            except OSError as error:
                # Not raised: a decoder in C that calls this would ignore it.
                self.problem = f"The recording cannot be read from here on: {error.strerror or error}."
                break
            if not piece:
                inner = self._file.problem if isinstance(self._file, FileView) else None
                self.problem = self.problem or inner or _SHORTER
                break
            pieces.append(piece)
            self._position += len(piece)
        return b"".join(pieces)

    def readinto(self, buffer: memoryview | bytearray, /) -> int:  # type: ignore[override]
        """Read into a buffer; return how many bytes were read."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _read_run(self, end: int) -> bytes:
        index = bisect_right(self._starts, self._position) - 1
        start = self._starts[index]
        length = min(end, self._starts[index + 1]) - self._position
        self._file.seek(self._offsets[index] + self._position - start)
        piece = self._file.read(length)
        for offset, replacement in self.patches.items():
            at = offset - self._position
            if -len(replacement) < at < len(piece):
                patched = bytearray(piece)
                shown = replacement[max(0, -at) : len(piece) - at]
                patched[max(0, at) : max(0, at) + len(shown)] = shown
                piece = bytes(patched)
        return piece
