"""Admission: which calls the server accepts, which ones are open, and the status that each one ends with."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections import Counter
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import unquote

import grpc
from earmark_audio.line_sampler import LineSampler
from earmark_spotter import SpotterError

from earmark_server.logs import log
from earmark_server.memory.peers import WINDOW_BYTES, Peers, connection_of
from earmark_server.rpc.call import Call, CallKind
from earmark_server.rpc.connection_age import ConnectionAge
from earmark_server.rpc.principal import (
    current_peer,
    current_principal,
    current_token_digest,
    set_principal_from_certificate,
)
from earmark_server.status import DETAILS_KEY, CallError, broken_call_code

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from earmark_spotter import SpotterModel

    from earmark_server.inference.load import Load
    from earmark_server.rpc.tracing import CallSpan, Tracing
    from earmark_server.settings import Settings
    from earmark_server.status import CallContext

_LOGGER = logging.getLogger(__name__)

REQUEST_ID_KEY = "earmark-request-id"
"""The key of a call's request id in the trailing metadata."""


class Admission:
    """Admits calls within the server's limits, and counts those that are open."""

    def __init__(self, settings: Settings, tracing: Tracing | None = None) -> None:
        self.stalled = False
        """Whether inference has stalled, so that no stream and no recording is admitted."""
        self.load: Load | None = None
        """The engine's load, once the engine has started."""
        self.connection_age = ConnectionAge(settings)
        self.peers = Peers()
        self.is_guarded = False
        """Whether there is a guard."""
        self._tracing = tracing
        self._line_sampler = LineSampler()
        # A message may be longer than its method allows: the client must get the error that says so.
        self._pending_bytes = settings.max_message_bytes + WINDOW_BYTES
        self._max_streams = settings.max_streams
        self._max_recordings = settings.max_calls
        self._max_recordings_per_quota_key = settings.max_calls_per_client
        self._max_streams_per_quota_key = settings.max_streams_per_client
        self._max_load = settings.max_load
        self._max_lag_s = settings.max_lag_s
        self._open: set[Call] = set()
        self._counts = dict.fromkeys(CallKind, 0)
        self._counts_by_quota_key: Counter[tuple[CallKind, str]] = Counter()
        self._awaiting_config: Counter[str] = Counter()  # streams that do not count yet, by quota key
        self._draining = False
        self._all_ended = asyncio.Event()

    @property
    def open_calls(self) -> Sequence[Call]:
        """The calls that are open now."""
        return list(self._open)

    def count(self, kind: CallKind) -> int:
        """Return the number of open calls of a kind; a stream counts once for each of its models."""
        return self._counts[kind]

    def models_in_use(self) -> set[SpotterModel]:
        """Return the models that open calls use."""
        streams = [call.stream for call in self._open if call.stream is not None]
        return {lane.model for stream in streams for lane in stream.session.lanes}

    def drain(self) -> None:
        """Reject streams and recordings from now on."""
        self._draining = True
        self._check_all_ended()

    def raise_if_draining(self) -> None:
        """Raise CallError (DRAINING) after `drain`."""
        if self._draining:
            raise CallError("DRAINING", "This server is draining. Use another one.")

    async def wait_until_all_ended(self) -> None:
        """Wait, after `drain`, until no call is open."""
        await self._all_ended.wait()

    def count_stream(self, call: Call) -> None:
        """Count a stream from now on, because its config has arrived; CallError if there are too many."""
        self._stop_awaiting_config(call)
        self._check_limits(call)
        self._count(call)

    def count_rejected_call(self) -> None:
        """Count the current call, which is not read, on a connection on which other clients may call."""
        origin = self.peers.get(connection_of(current_peer.get()))
        if origin is not None:
            origin.count_rejected_call()

    def report_flood(self) -> None:
        """Let the guard close the connection of the current call, and others of its client without a call."""
        connection = connection_of(current_peer.get())
        if self.is_guarded and connection.startswith(("ipv4:", "ipv6:")):
            self.peers.flooding.add(connection)

    @contextlib.asynccontextmanager
    async def admitted(
        self, context: CallContext, rpc: str, kind: CallKind, *, is_stranger: bool = False
    ) -> AsyncIterator[Call]:
        """Admit a call or reject it, and end it with the status that its block leads to.

        `is_stranger`: the block will reject the call.

        A CallError or SpotterError that the block raises becomes the status, reason and message that it
        states. Any other exception becomes INTERNAL with an incident id, under which the log has it.
        """
        set_principal_from_certificate(context)
        peer = current_peer.get()
        if is_stranger:
            self.count_rejected_call()
        call = Call(
            rpc,
            kind,
            unquote(peer),
            principal=current_principal.get(),
            token_digest=current_token_digest.get(),
            span=None if kind is CallKind.PROBE else self._start_span(context, rpc),
            line_sampler=self._line_sampler,
            origin=self.peers[connection_of(peer)] if self.is_guarded and not is_stranger else None,
        )
        call.origin.begin_call(self._pending_bytes)
        try:
            self._check_limits(call)
            self._add(call)
            try:
                async with call.interruptible():
                    with self.connection_age.applied_to(call):
                        yield call
            finally:
                self._remove(call)
        except (asyncio.CancelledError, grpc.aio.BaseError):
            # A read or a write fails only when the call has already ended.
            code = broken_call_code(context)
            if code is grpc.StatusCode.CANCELLED and not call.is_read:
                call.origin.count_cancelled_call(time.monotonic())
            call.log_end(code.name)
            raise asyncio.CancelledError from None
        except Exception as error:
            await _abort(call, context, error)
        finally:
            call.origin.end_call(self._pending_bytes)
        call.log_end("OK")
        context.set_trailing_metadata(((REQUEST_ID_KEY, call.request_id),))

    def rejecting_handler(self, rpc: str, error: CallError) -> grpc.RpcMethodHandler[object, object]:
        """Return a handler that rejects a call of any type with an error, without reading its requests."""

        async def reject(_: object, context: CallContext) -> None:
            async with self.admitted(context, rpc, CallKind.LOOKUP, is_stranger=True):
                raise error

        return grpc.stream_stream_rpc_method_handler(reject)

    def _start_span(self, context: CallContext, rpc: str) -> CallSpan | None:
        if self._tracing is None:
            return None
        return self._tracing.start_span(rpc, context.invocation_metadata() or ())

    def _check_limits(self, call: Call) -> None:
        """Raise CallError if the call cannot be admitted now."""
        if not call.kind.needs_inference:
            return
        self.raise_if_draining()
        if self.stalled:
            raise CallError("ENGINE_STALLED", "Inference has stalled on this server. Use another one.")
        if call.kind is CallKind.RECORDING:
            if self._counts[CallKind.RECORDING] >= self._max_recordings:
                raise CallError(
                    "OVERLOADED",
                    f"This server is processing {self._max_recordings} recordings, which is its limit. "
                    "Try again later.",
                )
            limit = self._max_recordings_per_quota_key
            if limit and self._counts_by_quota_key[CallKind.RECORDING, call.quota_key] >= limit:
                raise CallError(
                    "OVERLOADED",
                    f"This server is processing {limit} recordings of this client, which is its limit. "
                    "Try again later.",
                    quota=call.quota_key,
                )
            return
        as_several = f" This one counts as {call.weight}, because of its models." if call.weight > 1 else ""
        used = self._counts[CallKind.STREAM]
        if used + call.weight > self._max_streams:
            raise CallError(
                "TOO_MANY_STREAMS",
                f"This server has {used} streams open; its limit is {self._max_streams}.{as_several} "
                "Try again later.",
                quota="server",
            )
        if self._awaiting_config.total() >= self._max_streams:
            raise CallError(
                "TOO_MANY_STREAMS",
                f"This server waits for the config of {self._max_streams} streams, which is its limit. "
                "Try again later.",
                quota="server",
            )
        limit = self._max_streams_per_quota_key
        used = max(
            self._counts_by_quota_key[CallKind.STREAM, call.quota_key], self._awaiting_config[call.quota_key]
        )
        if limit and used + call.weight > limit:
            raise CallError(
                "TOO_MANY_STREAMS",
                f"This client has {used} streams open; its limit on this server is {limit}.{as_several} "
                "End one of them first.",
                quota=call.quota_key,
            )
        load = self.load
        if load is not None and (load.share > self._max_load or load.lag_s > self._max_lag_s):
            raise CallError(
                "OVERLOADED", "This server is processing as much live audio as it can. Try again later."
            )

    def _add(self, call: Call) -> None:
        self._open.add(call)
        if call.kind is CallKind.STREAM:
            self._awaiting_config[call.quota_key] += 1
            call.awaits_config = True
        else:
            self._count(call)

    def _count(self, call: Call) -> None:
        call.is_counted = True
        self._counts[call.kind] += call.weight
        self._counts_by_quota_key[call.kind, call.quota_key] += call.weight

    def _stop_awaiting_config(self, call: Call) -> None:
        if call.awaits_config:
            call.awaits_config = False
            self._awaiting_config[call.quota_key] -= 1
            if not self._awaiting_config[call.quota_key]:
                del self._awaiting_config[call.quota_key]

    def _remove(self, call: Call) -> None:
        self._open.discard(call)
        self._stop_awaiting_config(call)
        if call.is_counted:
            self._counts[call.kind] -= call.weight
            key = call.kind, call.quota_key
            self._counts_by_quota_key[key] -= call.weight
            if not self._counts_by_quota_key[key]:
                del self._counts_by_quota_key[key]
        self._check_all_ended()

    def _check_all_ended(self) -> None:
        if self._draining and all(call.kind is CallKind.PROBE for call in self._open):
            self._all_ended.set()


async def _abort(call: Call, context: CallContext, error: Exception) -> NoReturn:
    """End a call with the status that belongs to an exception."""
    incident = None
    if isinstance(error, SpotterError):
        error = CallError(error.reason, str(error))
    elif isinstance(error, MemoryError):
        error = CallError("OVERLOADED", "This server has no memory left for this call. Try again later.")
    elif not isinstance(error, CallError):
        incident = secrets.token_hex(6)
        log(_LOGGER, logging.ERROR, "internal error", exc_info=error, incident=incident, rpc=call.rpc)
        error = CallError("INTERNAL_ERROR", f"Internal error; the server's log has it as {incident}.")
    call.log_end(error.code.name, error.reason, incident)
    trailers = ((REQUEST_ID_KEY, call.request_id), (DETAILS_KEY, error.details()))
    await context.abort(error.code, error.message, trailers)
