"""One call: its peer, principal and request id, its log line, and how the server ends it early."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
import re
import secrets
import time
from typing import TYPE_CHECKING

from earmark_server.logs import log
from earmark_server.memory.peers import Peer
from earmark_server.rpc.principal import quota_key
from earmark_server.status import CallError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from earmark_audio.line_sampler import LineSampler

    from earmark_server.inference.stream_handle import StreamHandle
    from earmark_server.rpc.tracing import CallSpan

_LOGGER = logging.getLogger(__name__)

_REQUEST_ID = re.compile(r"[ -~]{1,128}")


class CallKind(enum.Enum):
    """The resources that a call needs: a live stream, one recording, or no inference at all.

    A probe is a lookup that is not of earmark.v1: health and reflection. A drain does not wait for it.
    """

    STREAM = enum.auto()
    RECORDING = enum.auto()
    LOOKUP = enum.auto()
    PROBE = enum.auto()

    @property
    def needs_inference(self) -> bool:
        """Whether a call of this kind needs the engine."""
        return self in (CallKind.STREAM, CallKind.RECORDING)


class Call:
    """One call to the server, from its admission to its log line."""

    def __init__(
        self,
        rpc: str,
        kind: CallKind,
        peer: str,
        *,
        principal: str | None = None,
        token_digest: bytes | None = None,
        span: CallSpan | None = None,
        line_sampler: LineSampler | None = None,
        origin: Peer | None = None,
    ) -> None:
        self.rpc = rpc
        self.kind = kind
        self.peer = peer
        """The client's address, in gRPC's notation."""
        self.origin = origin or Peer()
        """The connection that the call came on, if its client may call."""
        self.principal = principal
        """The name of the call's credential; None without one."""
        self.token_digest = token_digest
        """The SHA-256 of the call's token; None without one."""
        self.quota_key = quota_key(principal, peer)
        self.request_id = secrets.token_hex(8)
        self.model: str | None = None
        """The names of the call's models, separated by commas."""
        self.weight = 1
        """As how many calls it counts in the limits on its kind: a stream once for each of its models."""
        self.audio_ns: int | None = None
        self.detection_count = 0
        self.is_read = False
        """Whether a message of the client has been read."""
        self.awaits_config = False
        """Whether the call is a stream whose config has not arrived."""
        self.is_counted = False
        """Whether the call counts against the limits on its kind. A stream does once its config is there."""
        self.stream: StreamHandle | None = None
        """The call's stream in the engine, once it has one."""
        self.span = span
        self._line_sampler = line_sampler
        self._started_s = time.perf_counter()
        self._interrupt: asyncio.Timeout | None = None
        self._error: CallError | None = None

    @property
    def elapsed_ns(self) -> int:
        """Time since the call arrived."""
        return round((time.perf_counter() - self._started_s) * 1e9)

    def set_request_id(self, request_id: str, field: str) -> None:
        """Set the request id that the client has chosen; an empty one keeps the server's id.

        Raises CallError (BAD_CONFIG), which names `field` of the request, for an id that is not valid.
        """
        if not request_id:
            return
        if not _REQUEST_ID.fullmatch(request_id):
            raise CallError(
                "BAD_CONFIG",
                f"A request id must be at most 128 printable ASCII characters, but is {request_id[:40]!a} "
                f"({len(request_id)} characters).",
                field=field,
            )
        self.request_id = request_id

    def count_message(self, audio_bytes: int) -> None:
        """Count a message that was read, with this many bytes of audio."""
        self.is_read = True
        self.origin.count_message(audio_bytes)

    def notify_draining(self) -> None:
        """Send the client of a stream a Progress with `draining` set, so that it resumes elsewhere."""
        if self.stream is not None:
            self.stream.request_progress()

    def end(self, error: CallError) -> None:
        """End the call with an error, whatever it waits for; the first error counts."""
        if self._interrupt is not None and self._error is None:
            self._error = error
            self._interrupt.reschedule(asyncio.get_running_loop().time())

    @contextlib.asynccontextmanager
    async def interruptible(self) -> AsyncIterator[None]:
        """Let `end` interrupt the block; the error that it was given is raised here."""
        try:
            async with asyncio.timeout(None) as self._interrupt:
                yield
        except TimeoutError:
            if self._error is None:
                raise
            raise self._error from None
        finally:
            self._interrupt = None

    def log_end(self, status: str, reason: str | None = None, incident: str | None = None) -> None:
        """Write the call's log line and end its span; `status` is the name of a gRPC status code."""
        level = logging.DEBUG if not self.kind.needs_inference and status == "OK" else logging.INFO
        # Calls that fail before they have sent audio can be numerous: each costs its client next to nothing.
        sampled: dict[str, int] | None = {}
        if self._line_sampler is not None and status != "OK" and self.audio_ns is None and incident is None:
            sampled = self._line_sampler.admit(reason or status)
        if sampled is not None:
            self._log_line(level, status, reason, incident, sampled)
        if self.span is not None:
            self.span.end(
                status,
                reason,
                request_id=self.request_id,
                principal=self.principal,
                model=self.model,
                audio_s=None if self.audio_ns is None else self.audio_ns / 1e9,
                detections=self.detection_count,
            )

    def _log_line(
        self, level: int, status: str, reason: str | None, incident: str | None, sampled: dict[str, int]
    ) -> None:
        log(
            _LOGGER,
            level,
            "call ended",
            rpc=self.rpc,
            request_id=self.request_id,
            peer=self.peer,
            principal=self.principal,
            model=self.model,
            audio_s=None if self.audio_ns is None else round(self.audio_ns / 1e9, 3),
            detections=self.detection_count if self.kind.needs_inference else None,
            wall_s=round(self.elapsed_ns / 1e9, 3),
            status=status,
            reason=reason,
            incident=incident,
            trace_id=None if self.span is None else self.span.trace_id,
            **sampled,
        )
