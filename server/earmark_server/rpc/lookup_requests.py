"""Reads the requests of calls that need no inference: health checks, reflection, ListModels, GetModel.

They are short, and arrive with the headers of their call. gRPC buffers a message as soon as it is read, up to
the limit of the port, which recordings need. So only a few of them are read at a time, fewer of one client,
and none for long: a client that sends the beginning of long messages can fill neither the memory nor all of
these places.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from earmark_server.rpc.idle_timeout import end_when_idle
from earmark_server.rpc.request_reader import RequestReader
from earmark_server.rpc.turns import Turns
from earmark_server.status import CallError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import grpc

    from earmark_server.rpc.call import Call
    from earmark_server.settings import Settings

# The time in which the turn of a lookup has to come.
_TURN_TIMEOUT_S = 5.0

Request = TypeVar("Request")


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """How many requests are read at once, in total and of one client, and how long each may take."""

    at_once: int
    at_once_per_client: int
    timeout_s: float


LOOKUPS = ReadLimits(at_once=16, at_once_per_client=4, timeout_s=5.0)
HEALTH = ReadLimits(at_once=16, at_once_per_client=8, timeout_s=1.0)
"""Of health checks, apart from the lookups: behind a proxy, its own checks count as those of its clients."""
HEALTH_PORT = ReadLimits(at_once=1024, at_once_per_client=256, timeout_s=1.0)
"""Of the health port, whose messages are so short that they need no turns."""


class LookupRequests:
    """Reads the requests of lookups, a bounded number at a time."""

    def __init__(self, settings: Settings, limits: ReadLimits) -> None:
        self._idle_timeout_s = min(settings.idle_timeout_s, limits.timeout_s)
        self._slow_reader_timeout_s = settings.slow_reader_timeout_s
        self._turns = Turns(limits.at_once, limits.at_once_per_client, _TURN_TIMEOUT_S)

    async def only(
        self, context: grpc.aio.ServicerContext[Request | CallError, bytes], call: Call
    ) -> Request:
        """Return the request of a unary call.

        Raises CallError if it does not arrive in time, is too long, or cannot be decoded.
        """
        async with self._turns.turn(call.quota_key):
            with end_when_idle(call, self._idle_timeout_s, self._slow_reader_timeout_s) as activity:
                request = await RequestReader(context, activity).first()
        if request is None:
            raise CallError("BAD_CONFIG", f"{call.rpc} needs one message, but the client sent none.")
        return request


class OpenStreams:
    """Counts the open streams of one lookup RPC, and limits them, in total and of one client."""

    def __init__(self, name: str, limit: int, limit_per_client: int) -> None:
        self._name = name
        self._limit, self._limit_per_client = limit, limit_per_client
        self._open: Counter[str] = Counter()

    @contextlib.contextmanager
    def counted(self, quota_key: str) -> Iterator[None]:
        """Count a client's stream during the block; CallError (OVERLOADED) if there are too many."""
        if self._open.total() >= self._limit or self._open[quota_key] >= self._limit_per_client:
            raise CallError(
                "OVERLOADED",
                f"The limit on open {self._name} streams is reached: {self._limit} in all, "
                f"{self._limit_per_client} of one client. End one of them first.",
            )
        self._open[quota_key] += 1
        try:
            yield
        finally:
            self._open[quota_key] -= 1
            if not self._open[quota_key]:
                del self._open[quota_key]
