"""Reads the requests of one call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

import grpc

from earmark_server.rpc.uncancelled import uncancelled
from earmark_server.status import CallError

if TYPE_CHECKING:
    from earmark_server.rpc.idle_timeout import Activity

Request = TypeVar("Request")


class RequestReader(Generic[Request]):
    """Reads requests one at a time. Only one read may be pending."""

    def __init__(
        self, context: grpc.aio.ServicerContext[Request | CallError, bytes], activity: Activity
    ) -> None:
        self._context = context
        self._activity = activity

    @property
    def is_reading(self) -> bool:
        """Whether a read is pending."""
        return self._activity.reading_since is not None

    async def first(self) -> Request | None:
        """Return the first request, None if there is none; unlike `read`, it may be cancelled."""
        return await uncancelled(self.read())

    async def read(self) -> Request | None:
        """Return the next request, None after the last one; CallError if its bytes are unusable.

        It must not be cancelled; see `uncancelled`.
        """
        self._activity.reading_since = self._activity.now()
        request = await self._context.read()
        self._activity.reading_since = None
        if request is grpc.aio.EOF:
            return None
        if isinstance(request, CallError):
            self._activity.count_message(request.message_bytes)
            raise request
        self._activity.count_message(len(getattr(request, "audio", b"")))
        return request
