"""What ties a program's traces to the server's; nothing where neither makes any."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from earmark_client.credentials import Metadata


def outgoing() -> Metadata:
    """Give the metadata that names the program's current span, if the program itself uses OpenTelemetry."""
    if "opentelemetry.trace" not in sys.modules:
        return ()
    from opentelemetry import propagate

    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return tuple(carrier.items())


class StreamTrace:
    """The server's span of a stream's newest call, for the server that goes on with the stream."""

    def __init__(self) -> None:
        self.metadata: Metadata = ()
        """What to send with the next call."""

    def take(self, initial_metadata: Iterable[tuple[str, str | bytes]] | None) -> None:
        """Take what the server sent before its first answer."""
        for key, value in initial_metadata or ():
            if key == "traceresponse" and isinstance(value, str):
                self.metadata = (("earmark-resumes", value),)
