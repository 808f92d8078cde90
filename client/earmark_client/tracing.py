"""Trace context between a program and the server; empty unless both sides use tracing."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from earmark_client.credentials import Metadata


def current_context() -> Metadata:
    """Return metadata with the program's current span, if the program uses OpenTelemetry."""
    if "opentelemetry.trace" not in sys.modules:
        return ()
    from opentelemetry import propagate

    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return tuple(carrier.items())


class StreamTrace:
    """The server's span for the latest call of a stream, to which the next call is linked."""

    def __init__(self) -> None:
        self.metadata: Metadata = ()
        """Metadata of the next call."""

    def read(self, initial_metadata: Iterable[tuple[str, str | bytes]] | None) -> None:
        """Read the server's span from the initial metadata of a call."""
        for key, value in initial_metadata or ():
            if key == "traceresponse" and isinstance(value, str):
                self.metadata = (("earmark-resumes", value),)
