"""The frame around every call: whether it is let in, its name, its log line, and how it ends in error."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import ipaddress
import logging
import re
import secrets
import time
from collections import Counter
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import unquote

import grpc
from earmark_spotter import SpotterError

from earmark_server.logs import log
from earmark_server.rpc import authentication
from earmark_server.rpc.connection_age import ConnectionAge
from earmark_server.status import DETAILS_KEY, CallError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from earmark_spotter import Detection, SpotterModel

    from earmark_server.inference.stream_handle import StreamHandle
    from earmark_server.rpc.tracing import CallTrace, Tracing
    from earmark_server.settings import Settings

_LOGGER = logging.getLogger(__name__)

REQUEST_ID_KEY = "earmark-request-id"

_REQUEST_ID = re.compile(r"[ -~]{1,128}")


class Kind(enum.Enum):
    """What a call takes of the server."""

    STREAM = enum.auto()
    RECORDING = enum.auto()
    LOOKUP = enum.auto()


class Call:
    """One call: what its log line will say."""

    def __init__(self, rpc: str, kind: Kind, peer: str) -> None:
        self.rpc = rpc
        self.kind = kind
        self.peer = peer
        self.caller = authentication.caller.get()
        self.token_digest = authentication.token_digest.get()
        self.client = _client(self.caller, peer)
        self.request_id = secrets.token_hex(8)
        self.model: str | None = None
        self.audio_ns: int | None = None
        self.detection_count = 0
        self.stream: StreamHandle | None = None
        self.trace: CallTrace | None = None
        self._begun_s = time.perf_counter()
        self._guard: asyncio.Timeout | None = None
        self._ended_by: CallError | None = None

    def end(self, error: CallError) -> None:
        """End the call with an error, whatever it is waiting for just now."""
        if self._guard is not None and self._ended_by is None:
            self._ended_by = error
            self._guard.reschedule(asyncio.get_running_loop().time())

    @contextlib.asynccontextmanager
    async def can_be_ended(self) -> AsyncIterator[None]:
        """Let `end` end the block."""
        try:
            async with asyncio.timeout(None) as self._guard:
                yield
        except TimeoutError:
            if self._ended_by is None:
                raise
            raise self._ended_by from None
        finally:
            self._guard = None

    def take_request_id(self, wanted: str, field: str) -> None:
        """Call it what its client calls it."""
        if not wanted:
            return
        if not _REQUEST_ID.fullmatch(wanted):
            raise CallError(
                "BAD_CONFIG",
                f"A request id must be at most 128 printable ASCII characters, but is {wanted[:40]!a} "
                f"({len(wanted)} characters).",
                field=field,
            )
        self.request_id = wanted

    @property
    def elapsed_ns(self) -> int:
        """Time since the call came in."""
        return round((time.perf_counter() - self._begun_s) * 1e9)

    def log_end(self, status: str, reason: str | None = None, incident: str | None = None) -> None:
        """Write the call's one line."""
        level = logging.DEBUG if self.kind is Kind.LOOKUP and status == "OK" else logging.INFO
        log(
            _LOGGER,
            level,
            "call ended",
            rpc=self.rpc,
            request_id=self.request_id,
            peer=self.peer,
            caller=self.caller,
            model=self.model,
            audio_s=None if self.audio_ns is None else round(self.audio_ns / 1e9, 3),
            detections=None if self.kind is Kind.LOOKUP else self.detection_count,
            wall_s=round(self.elapsed_ns / 1e9, 3),
            status=status,
            reason=reason,
            incident=incident,
            trace_id=None if self.trace is None else self.trace.trace_id,
        )
        if self.trace is not None:
            self.trace.end(self, status, reason)


class Calls:
    """All calls that are open now."""

    def __init__(self, settings: Settings, tracing: Tracing | None = None) -> None:
        self._tracing = tracing
        self.stalled = False
        """Whether no streams and recordings are let in because nobody would listen to them."""
        self._limits = {
            Kind.STREAM: (settings.max_streams, "TOO_MANY_STREAMS", "streams are open"),
            Kind.RECORDING: (settings.max_calls, "OVERLOADED", "recordings are being listened to"),
        }
        self.connection_age = ConnectionAge(settings)
        self.detections: Counter[tuple[str | None, str]] = Counter()
        """How many there were of each model's keywords."""
        self._open: set[Call] = set()
        self._counts = dict.fromkeys(Kind, 0)
        self._max_streams_per_client = settings.max_streams_per_client
        self._streams_by_client: Counter[str] = Counter()
        self._draining = False
        self._all_ended = asyncio.Event()

    def __iter__(self) -> Iterator[Call]:
        return iter(list(self._open))

    def __len__(self) -> int:
        return len(self._open)

    def count(self, kind: Kind) -> int:
        """How many calls of a kind are open."""
        return self._counts[kind]

    def note(self, call: Call, detection: Detection, rate_hz: int) -> None:
        """Count a detection, and log it: what a client was told can be looked up by its request id."""
        call.detection_count += 1
        self.detections[call.model, detection.keyword] += 1
        log(
            _LOGGER,
            logging.INFO,
            "detection",
            request_id=call.request_id,
            keyword=detection.keyword,
            start_s=round(detection.start_sample / rate_hz, 3),
            end_s=round(detection.end_sample / rate_hz, 3),
            confidence=round(detection.confidence, 3),
            detection_id=detection.id,
        )

    def drain(self) -> None:
        """Let no more streams and recordings in."""
        self._draining = True
        if not self._open:
            self._all_ended.set()

    def refuse_if_draining(self) -> None:
        """Raise CallError (DRAINING) after `drain`."""
        if self._draining:
            raise CallError("DRAINING", "This server is going away: try another one.")

    async def all_ended(self) -> None:
        """After `drain`: wait until no call is open."""
        await self._all_ended.wait()

    def models(self) -> set[SpotterModel]:
        """Give the models that calls listen with."""
        return {call.stream.session.model for call in self._open if call.stream is not None}

    @contextlib.asynccontextmanager
    async def handle(
        self, context: grpc.aio.ServicerContext[object, object], rpc: str, kind: Kind
    ) -> AsyncIterator[Call]:
        """Let a call in or refuse it, and end it as its block ended.

        What the block raises is turned into the contract's status: SpotterError and CallError
        into what they say, all else into INTERNAL with an id that the log has too.
        """
        authentication.name_by_certificate(context)
        call = Call(rpc, kind, unquote(context.peer()))
        if self._tracing is not None:
            call.trace = self._tracing.begin(rpc, context.invocation_metadata() or ())
        try:
            self._let_in(call)
            self._add(call)
            try:
                async with call.can_be_ended():
                    with self.connection_age.moving(call):
                        yield call
            finally:
                self._remove(call)
                if self._draining and not self._open:
                    self._all_ended.set()
        except asyncio.CancelledError:
            self._log_broken(call, context)
            raise
        except grpc.aio.BaseError:
            # Reading and writing fail only when the call is gone.
            self._log_broken(call, context)
            raise asyncio.CancelledError from None
        except Exception as error:
            await self._abort(call, context, error)
        call.log_end("OK")
        context.set_trailing_metadata(((REQUEST_ID_KEY, call.request_id),))

    def refusal(self, rpc: str, error: CallError) -> grpc.RpcMethodHandler[object, object]:
        """Make a handler that ends a call with an error, of whatever kind it is, and reads nothing of it."""

        async def refuse(_: object, context: grpc.aio.ServicerContext[object, object]) -> None:
            async with self.handle(context, rpc, Kind.LOOKUP):
                raise error

        return grpc.stream_stream_rpc_method_handler(refuse)

    def _let_in(self, call: Call) -> None:
        if call.kind is Kind.LOOKUP:
            return
        self.refuse_if_draining()
        if self.stalled:
            raise CallError("ENGINE_STALLED", "This server listens to nothing now: try another one.")
        limit, reason, what = self._limits[call.kind]
        if self._counts[call.kind] >= limit:
            quota = "server" if call.kind is Kind.STREAM else ""
            message = f"{limit} {what} on this server, and it takes no more: come back later."
            raise CallError(reason, message, quota=quota)
        limit = self._max_streams_per_client
        if limit and call.kind is Kind.STREAM and self._streams_by_client[call.client] >= limit:
            raise CallError(
                "TOO_MANY_STREAMS",
                f"This client has {limit} streams open, and no client may have more here: end one first.",
                quota=call.client,
            )

    def _add(self, call: Call) -> None:
        self._open.add(call)
        self._counts[call.kind] += 1
        if call.kind is Kind.STREAM:
            self._streams_by_client[call.client] += 1

    def _remove(self, call: Call) -> None:
        self._open.discard(call)
        self._counts[call.kind] -= 1
        if call.kind is Kind.STREAM:
            self._streams_by_client[call.client] -= 1
            if not self._streams_by_client[call.client]:
                del self._streams_by_client[call.client]

    @staticmethod
    def _log_broken(call: Call, context: grpc.aio.ServicerContext[object, object]) -> None:
        late = context.time_remaining() == 0
        call.log_end("DEADLINE_EXCEEDED" if late else "CANCELLED")

    @staticmethod
    async def _abort(
        call: Call, context: grpc.aio.ServicerContext[object, object], error: Exception
    ) -> NoReturn:
        incident = None
        if isinstance(error, SpotterError):
            error = CallError(error.reason, str(error))
        elif isinstance(error, MemoryError):
            error = CallError("OVERLOADED", "This server has no memory left for the call: come back later.")
        elif not isinstance(error, CallError):
            incident = secrets.token_hex(6)
            log(_LOGGER, logging.ERROR, "internal error", exc_info=error, incident=incident, rpc=call.rpc)
            error = CallError("INTERNAL_ERROR", f"Internal error; the server's log has it as {incident}.")
        call.log_end(error.code.name, error.reason, incident)
        trailers = ((REQUEST_ID_KEY, call.request_id), (DETAILS_KEY, error.details()))
        await context.abort(error.code, error.message, trailers)


def _client(caller: str | None, peer: str) -> str:
    """Name who calls: the credential, else the address in gRPC's `ipv4:ADDRESS:PORT`, `ipv6:[ADDRESS]:PORT`.

    Of IPv6 its /64 network, for one subscriber has all of that; a peer of another kind as it is.
    """
    if caller is not None:
        return f"client:{caller}"
    kind, _, rest = peer.partition(":")
    if kind not in ("ipv4", "ipv6"):
        return peer
    address = ipaddress.ip_address(rest.rpartition(":")[0].strip("[]").partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            return f"clientip:{ipaddress.ip_network((address, 64), strict=False)}"
        address = address.ipv4_mapped
    return f"clientip:{address}"
