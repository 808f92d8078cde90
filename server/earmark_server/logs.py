"""Log lines as data: key=value text or one JSON object a line, on standard error."""

from __future__ import annotations

import json
import logging
import os
import select
import sys
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

_LOGGER = logging.getLogger(__name__)

# Printed bare as a value: no blanks, quotes or equals signs that would need escaping.
_BARE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,:;/_+-*@%[]()")

_PATIENCE_S = 0.1
"""How long a line may wait for room where it is written to."""


def log(logger: logging.Logger, level: int, event: str, *, exc_info: Any = None, **values: Any) -> None:
    """Log an event with its values; what is None is left out."""
    if logger.isEnabledFor(level):
        fields = {key: value for key, value in values.items() if value is not None}
        logger.log(level, event, exc_info=exc_info, extra={"earmark": fields})


def configure(level: str, form: str, descriptor: int = 2, *, worker: int | None = None) -> None:
    """Send this process's log lines to standard error, as `text` or `json`, from a level on.

    `worker`: one of several processes that write to the same place; each of its lines names it.
    """
    if sys.stderr is None:
        # It was closed: what is opened next would get its number, and be written to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    handler = _Handler(descriptor)
    handler.setFormatter(_JsonFormatter(worker) if form == "json" else _TextFormatter(worker))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # Libraries speak only when something is wrong.
    root.setLevel(logging.WARNING)
    logging.getLogger("earmark_server").setLevel(level.upper())


def log_what_nobody_catches(loop: asyncio.AbstractEventLoop) -> None:
    """Have errors that end a thread, the process, or a task of the loop's logged as the others are.

    Python itself would write their texts.
    """

    def on_loop(_: object, context: dict[str, Any]) -> None:
        # Its message may quote what the callback was called with.
        _log_uncaught(context.get("exception"))

    loop.set_exception_handler(on_loop)
    sys.excepthook = lambda _, error, __: _log_uncaught(error)
    threading.excepthook = lambda unhandled: _log_uncaught(unhandled.exc_value)


def _log_uncaught(error: BaseException | None) -> None:
    log(_LOGGER, logging.ERROR, "uncaught error", exc_info=error)


class _Handler(logging.Handler):
    """Writes each line at once, so that those of other processes do not come in between; or not at all.

    Where a line cannot be written, for the disk is full or nobody reads what is written, the server goes
    on without it. How many were lost is said as soon as there is room again.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._lost = 0
        self._torn = False

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record) + "\n"
            if self._lost:
                about = {"name": __name__, "levelname": "WARNING", "msg": "log lines lost"}
                lost = logging.makeLogRecord({**about, "earmark": {"lines": self._lost}})
                text = f"{self.format(lost)}\n{text}"
            self._write(("\n" * self._torn + text).encode(errors="backslashreplace"))
        except Exception:
            self._lost += 1
        else:
            self._lost = 0

    def _write(self, lines: bytes) -> None:
        # Whoever reads may be slow for a moment, but the event loop must not wait for it line by line.
        patience_s = 0 if self._lost else _PATIENCE_S
        if sys.platform != "win32" and not select.select((), (self._descriptor,), (), patience_s)[1]:
            raise BlockingIOError
        written = os.write(self._descriptor, lines)
        self._torn = written < len(lines)
        if self._torn:
            raise OSError("the disk is full")


class _Formatter(logging.Formatter):
    def __init__(self, worker: int | None) -> None:
        super().__init__()
        self._worker = worker

    def _fields(self, record: logging.LogRecord) -> dict[str, Any]:
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        fields: dict[str, Any] = {
            "time": f"{when}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        if self._worker is not None:
            fields["worker"] = self._worker
        if not record.name.startswith("earmark_server"):
            fields["logger"] = record.name
        fields.update(getattr(record, "earmark", {}))
        return fields

    def formatException(self, ei: Any) -> str:  # noqa: N802
        """Tell where it went wrong, and by what kinds of exceptions, first the one that was caught.

        Not their texts: whoever raises one may quote what a client sent.
        """
        told: list[str] = []
        seen: set[int] = set()
        error: BaseException | None = ei[1]
        while error is not None and id(error) not in seen:
            seen.add(id(error))
            kind = type(error)
            told += [*traceback.format_tb(error.__traceback__), f"{kind.__module__}.{kind.__qualname__}\n"]
            error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        return "".join(told).rstrip()


class _JsonFormatter(_Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = self._fields(record)
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields, default=str)


class _TextFormatter(_Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = " ".join(f"{key}={_quoted(value)}" for key, value in self._fields(record).items())
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _quoted(value: Any) -> str:
    text = str(value)
    return text if text and _BARE.issuperset(text) else json.dumps(text)
