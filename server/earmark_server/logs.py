"""Log lines as data: key=value text or one JSON object a line, on standard error."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any, TextIO

# Printed bare as a value: no blanks, quotes or equals signs that would need escaping.
_BARE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,:;/_+-*@%[]()")


def log(logger: logging.Logger, level: int, event: str, *, exc_info: Any = None, **values: Any) -> None:
    """Log an event with its values; what is None is left out."""
    if logger.isEnabledFor(level):
        fields = {key: value for key, value in values.items() if value is not None}
        logger.log(level, event, exc_info=exc_info, extra={"earmark": fields})


def configure(level: str, form: str, stream: TextIO | None = None, *, worker: int | None = None) -> None:
    """Send this process's log lines to standard error, as `text` or `json`, from a level on.

    `worker`: one of several processes that write to the same place; each of its lines names it.
    """
    # It writes each line at once, so that those of other processes do not come in between.
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_JsonFormatter(worker) if form == "json" else _TextFormatter(worker))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # Libraries speak only when something is wrong.
    root.setLevel(logging.WARNING)
    logging.getLogger("earmark_server").setLevel(level.upper())


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
