"""A real server, real gRPC over loopback, and the words of the tiny model to send to it."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
import grpc_status.rpc_status
import numpy as np
from earmark.v1 import keyword_spotting_pb2 as messages
from earmark.v1 import keyword_spotting_service_pb2 as rpcs
from earmark.v1 import keyword_spotting_service_pb2_grpc as stubs
from earmark_server import event_loop
from earmark_server.server import Server
from earmark_server.settings import Settings
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2

from support import tiny_model
from support.deadlines import DEADLINE_S
from support.environment import ADMIT_ALWAYS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
    from pathlib import Path

WORDS = [(0.5, "low"), (1.4, "mid"), (2.2, "high"), (3.1, "low")]
LINEAR16 = messages.AudioFormat(encoding=messages.ENCODING_LINEAR16, sample_rate_hertz=16_000)


@dataclass
class Rig:
    server: Server
    address: str
    channel: grpc.aio.Channel
    stub: Any

    def stream(self, *requests: rpcs.StreamingSpotRequest, **options: Any) -> Any:
        """Open a stream and send these requests at once."""

        async def send() -> AsyncIterator[rpcs.StreamingSpotRequest]:
            for request in requests:
                yield request

        call = self.stub.StreamingSpot(send(), timeout=DEADLINE_S, **options)
        call.server_status = asyncio.get_running_loop().create_future()
        call.add_done_callback(_store_server_status)
        return call

    async def used_slots(self, expected: int) -> None:
        """Wait until the engine has that many slots in use."""
        async with asyncio.timeout(DEADLINE_S):
            # The engine's thread has no event to wait for.
            while self.server._engine.counters.open_slots != expected:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def serving(model: Path | tuple[Path, ...], **overrides: Any) -> AsyncIterator[Rig]:
    paths = model if isinstance(model, tuple) else (model,)
    server = Server(Settings(**{"port": 0, "model": tuple(map(str, paths)), **ADMIT_ALWAYS, **overrides}))
    await server.start()
    address = f"127.0.0.1:{server.port}"
    try:
        async with open_channel(address) as channel:
            yield Rig(server, address, channel, stubs.KeywordSpottingServiceStub(channel))
    finally:
        await server.stop()


def open_channel(address: str) -> grpc.aio.Channel:
    # A channel with its own connection: gRPC shares one among equal channels of a process.
    options = (("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1))
    return grpc.aio.insecure_channel(address, options=options)


@contextlib.asynccontextmanager
async def beside(rig: Rig) -> AsyncIterator[None]:
    """A stream that opens before the block, and must have detected every word after it."""
    async with open_channel(rig.address) as channel:
        stub = stubs.KeywordSpottingServiceStub(channel)
        call = stub.StreamingSpot(timeout=DEADLINE_S)
        await call.write(config())
        data = pcm()
        for request in chunks(data[:64_000]):
            await call.write(request)
        yield
        for request in chunks(data[64_000:]):
            await call.write(request)
        await call.done_writing()
        events = []
        while (event := await call.read()) is not grpc.aio.EOF:
            events.append(event)
        assert [one.keyword for one in detections(events)] == [word for _, word in WORDS]


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run an asynchronous test to its end, or to the deadline."""

    async def within_deadline() -> None:
        async with asyncio.timeout(2 * DEADLINE_S):
            await scenario()

    event_loop.run(within_deadline())


def config(**fields: Any) -> rpcs.StreamingSpotRequest:
    fields.setdefault("audio_format", LINEAR16)
    return rpcs.StreamingSpotRequest(config=rpcs.StreamingConfig(**fields))


def audio(data: bytes) -> rpcs.StreamingSpotRequest:
    return rpcs.StreamingSpotRequest(audio=data)


def silence(seconds: float) -> rpcs.StreamingSpotRequest:
    return rpcs.StreamingSpotRequest(silence=duration(seconds))


def duration(seconds: float) -> Duration:
    whole, nanos = divmod(round(seconds * 1e9), 10**9)
    return Duration(seconds=whole, nanos=nanos)


def seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9


def pcm(words: list[tuple[float, str]] = WORDS, length_s: float = 4.0, **options: Any) -> bytes:
    """Return a recording of the tiny model's words as 16-bit samples."""
    return linear16(tiny_model.recording(words, length_s, **options))


def linear16(samples: np.ndarray) -> bytes:
    return np.round(samples * 32767).astype("<i2").tobytes()


def chunks(data: bytes, size: int = 3200) -> list[rpcs.StreamingSpotRequest]:
    """Audio requests of `size` bytes, 100 ms at 16 kHz unless stated."""
    return [audio(data[i : i + size]) for i in range(0, len(data), size)]


async def collect(call: Any) -> list[rpcs.StreamingSpotResponse]:
    return [event async for event in call]


def detections(events: Iterable[rpcs.StreamingSpotResponse]) -> list[messages.KeywordDetection]:
    return [event.detection for event in events if event.WhichOneof("event") == "detection"]


def kinds(events: Iterable[rpcs.StreamingSpotResponse]) -> list[str]:
    return [event.WhichOneof("event") for event in events]


@dataclass
class Failure:
    code: grpc.StatusCode
    message: str
    reason: str
    fields: list[str]
    retry_s: float | None
    quotas: list[str]
    trailers: dict[str, Any]


_REPLACED = "Internal error from Core"


@dataclass
class _ServerStatus:
    """The status that the server sent, with the methods of a call."""

    _code: grpc.StatusCode
    _details: str
    _trailers: grpc.aio.Metadata

    async def code(self) -> grpc.StatusCode:
        return self._code

    async def details(self) -> str:
        return self._details

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        return self._trailers


def _store_server_status(call: Any) -> None:
    """Store the server's status of a call with the call; gRPC calls this for each status that it sets.

    If a write fails because the call has just ended, grpc.aio replaces the status by INTERNAL
    (https://github.com/grpc/grpc/issues/36066).
    """
    status = _ServerStatus(*(_result(one()) for one in (call.code, call.details, call.trailing_metadata)))
    if status._details != _REPLACED and not call.server_status.done():
        call.server_status.set_result(status)


def _result(finished: Coroutine[Any, Any, Any]) -> Any:
    """Return the result of a coroutine that waits for nothing."""
    try:
        finished.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("a call that has ended has no status")


async def failure(call: Any) -> Failure:
    """Wait for a call to fail, and return its status and the details that come with it.

    The request that makes a call fail must be its last one, unless the call is a `Rig.stream`.
    """
    with contextlib.suppress(grpc.aio.AioRpcError):
        if isinstance(call, grpc.aio.UnaryUnaryCall | grpc.aio.StreamUnaryCall):
            await call
        else:
            while await call.read() is not grpc.aio.EOF:
                pass
    if await call.details() == _REPLACED and hasattr(call, "server_status"):
        call = await asyncio.wait_for(call.server_status, DEADLINE_S)
    status = await grpc_status.rpc_status.aio.from_call(call)
    code, trailers = await call.code(), dict(await call.trailing_metadata())
    assert status is not None, f"{code} without details: {await call.details()}"
    found: dict[type, Any] = {}
    kinds = ("ErrorInfo", "BadRequest", "RetryInfo", "QuotaFailure")
    for kind in (getattr(error_details_pb2, name) for name in kinds):
        for detail in status.details:
            if detail.Is(kind.DESCRIPTOR):
                found[kind] = kind.FromString(detail.value)
    info = found[error_details_pb2.ErrorInfo]
    assert info.domain == "earmark.v1"
    violations = (
        found[error_details_pb2.BadRequest].field_violations if error_details_pb2.BadRequest in found else []
    )
    retry = found.get(error_details_pb2.RetryInfo)
    quota = found.get(error_details_pb2.QuotaFailure)
    return Failure(
        code,
        status.message,
        info.reason,
        [violation.field for violation in violations],
        None if retry is None else seconds(retry.retry_delay),
        [] if quota is None else [violation.subject for violation in quota.violations],
        trailers,
    )
