"""Structured log lines on standard error: key=value text, or one JSON object per line."""

from __future__ import annotations

import logging
import os
import re
import select
import socket
import stat
import sys
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any

from earmark_audio.json_text import json_text
from earmark_audio.line_sampler import LineSampler

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

_LOGGER = logging.getLogger(__name__)

# Characters of a value that needs no quotes in the text format.
_UNQUOTED = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,:;/_+-*@%[]()")

_MAX_LIBRARY_CHARACTERS = 200
"""Of a line of a library."""

_BYTES = re.compile(r"""\bb(['"])(?:\\.|(?!\1).)*\1""")
"""Bytes as Python writes them. gRPC quotes headers that it cannot decode: 8 KB, or a token."""

_WRITE_TIMEOUT_S = 0.1
"""How long a line waits for its reader before it is dropped."""


def log(logger: logging.Logger, level: int, event: str, *, exc_info: Any = None, **values: Any) -> None:
    """Log an event with its values; values that are None are omitted."""
    if logger.isEnabledFor(level):
        fields = {key: value for key, value in values.items() if value is not None}
        logger.log(level, event, exc_info=exc_info, extra={"earmark": fields})


def configure(level: str, log_format: str, descriptor: int = 2, *, worker: int | None = None) -> None:
    """Write the log lines of this process to a descriptor, as `text` or `json`.

    `level`: the lowest level to write. `worker`: the id of this process, if it is one of several workers that
    write to the same place; each line then states it.
    """
    if sys.stderr is None:
        # Standard error is closed. The next file that is opened would get its number, and the log lines too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    handler = _Handler(descriptor)
    handler.setFormatter(_JsonFormatter(worker) if log_format == "json" else _TextFormatter(worker))
    handler.addFilter(_LibraryLimit())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # Of libraries, only warnings and errors matter.
    root.setLevel(logging.WARNING)
    logging.getLogger("earmark_server").setLevel(level.upper())


def log_uncaught_errors(loop: asyncio.AbstractEventLoop) -> None:
    """Log errors that end a thread, the process or a task of the loop in the same format as all others.

    Python's own hooks would write the text of the exception, which may quote data of a client.
    """

    def on_loop(_: object, context: dict[str, Any]) -> None:
        # The message of the context may quote the arguments of the callback.
        _log_uncaught(context.get("exception"))

    loop.set_exception_handler(on_loop)
    sys.excepthook = lambda _, error, __: _log_uncaught(error)
    threading.excepthook = lambda unhandled: _log_uncaught(unhandled.exc_value)


def _log_uncaught(error: BaseException | None) -> None:
    log(_LOGGER, logging.ERROR, "uncaught error", exc_info=error)


class _LibraryLimit(logging.Filter):
    """Limits the lines of libraries: gRPC writes one for every header that is no ASCII."""

    def __init__(self) -> None:
        super().__init__()
        self._sampler = LineSampler()

    def filter(self, record: logging.LogRecord) -> bool:
        if _is_own(record):
            return True
        sampled = self._sampler.admit(record.name)
        record.earmark = sampled
        return sampled is not None


def _event(record: logging.LogRecord) -> str:
    """Return the text of a line. Bytes are left out of lines of libraries: they may be a client's token."""
    text = record.getMessage()
    return text if _is_own(record) else _BYTES.sub("b'...'", text)[:_MAX_LIBRARY_CHARACTERS]


def _is_own(record: logging.LogRecord) -> bool:
    return record.name.startswith("earmark_server")


class _Handler(logging.Handler):
    """Writes each line with one system call, so that the lines of several processes do not mix, or drops it.

    A line is dropped if it cannot be written, because the disk is full or the reader of the log does not
    read. The server continues without it. The next line that can be written states how many were lost. A line
    that is longer than the free space of a pipe is written in parts. If it is dropped after a part, the next
    line ends it first.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._send = _sender(descriptor)
        self._lost = 0
        self._torn = False  # whether the last line was written only in part

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record) + "\n"
            if self._lost:
                values = {"name": __name__, "levelname": "WARNING", "msg": "log lines lost"}
                lost = logging.makeLogRecord({**values, "earmark": {"lines": self._lost}})
                text = f"{self.format(lost)}\n{text}"
            self._write(("\n" * self._torn + text).encode(errors="backslashreplace"))
        except Exception:
            self._lost += 1
        else:
            self._lost = 0

    def _write(self, lines: bytes) -> None:
        # The reader may be slow for a moment, but the event loop must not wait for it at every line.
        end_s = time.monotonic() + (0 if self._lost else _WRITE_TIMEOUT_S)
        while lines:
            rest_s = max(0.0, end_s - time.monotonic())
            if sys.platform != "win32" and not select.select((), (self._descriptor,), (), rest_s)[1]:
                raise BlockingIOError
            try:
                written = self._send(lines)
            except BlockingIOError:
                if not rest_s:
                    raise
                continue  # another worker was faster
            self._torn = not lines[:written].endswith(b"\n")
            lines = lines[written:]


def _sender(descriptor: int) -> Callable[[bytes], int]:
    """Return a function that writes bytes, or some of them, to a descriptor, and does not wait for a reader.

    Others may write to the same pipe or terminal, so that its flags stay as they are, and it is opened again.
    If it belongs to another user, that is impossible, and each call writes one page at most.
    """
    kind = os.fstat(descriptor).st_mode
    if stat.S_ISREG(kind) or sys.platform == "win32":
        return lambda lines: os.write(descriptor, lines)
    if stat.S_ISSOCK(kind):
        return lambda lines: _send_to_socket(descriptor, lines)
    try:
        own = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return lambda lines: os.write(descriptor, lines[: select.PIPE_BUF])
    return lambda lines: os.write(own, lines)


def _send_to_socket(descriptor: int, lines: bytes) -> int:
    connection = socket.socket(fileno=descriptor)
    try:
        return connection.send(lines, socket.MSG_DONTWAIT)
    finally:
        connection.detach()


class _Formatter(logging.Formatter):
    def __init__(self, worker: int | None) -> None:
        super().__init__()
        self._worker = worker

    def _fields(self, record: logging.LogRecord) -> dict[str, Any]:
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        fields: dict[str, Any] = {
            "time": f"{when}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": _event(record),
        }
        if self._worker is not None:
            fields["worker"] = self._worker
        if not _is_own(record):
            fields["logger"] = record.name
        fields.update(getattr(record, "earmark", {}))
        return fields

    def formatException(self, ei: Any) -> str:  # noqa: N802
        """Return the stack and the type of an exception and of its causes, the exception itself first.

        The texts of the exceptions are omitted, because they may quote data of a client.
        """
        parts: list[str] = []
        seen: set[int] = set()
        error: BaseException | None = ei[1]
        while error is not None and id(error) not in seen:
            seen.add(id(error))
            kind = type(error)
            parts += [*traceback.format_tb(error.__traceback__), f"{kind.__module__}.{kind.__qualname__}\n"]
            error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        return "".join(parts).rstrip()


class _JsonFormatter(_Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = self._fields(record)
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json_text(fields, default=str)


class _TextFormatter(_Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = " ".join(f"{key}={_quoted(value)}" for key, value in self._fields(record).items())
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _quoted(value: Any) -> str:
    text = str(value)
    return text if text and _UNQUOTED.issuperset(text) else json_text(text)
